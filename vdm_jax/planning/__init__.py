"""What a job will cost on a TPU, worked out on any machine."""
