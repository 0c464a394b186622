"""flax.linen modules: they know tensors, not diffusion."""
