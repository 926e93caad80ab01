"""The training loop: steps, checkpoints, exact resume."""
