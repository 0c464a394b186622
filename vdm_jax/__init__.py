"""vdm_jax: video diffusion in JAX/Flax, native to TPU pods."""
