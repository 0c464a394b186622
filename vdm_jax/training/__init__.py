"""Training: state, optimizer, sharding, checkpoints and the loop."""
