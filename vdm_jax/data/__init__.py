"""Host side: sources of clips and the pipeline; never imports jax."""
