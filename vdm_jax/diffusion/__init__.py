"""The mathematics of the diffusion process: jax only, no networks, no I/O."""
