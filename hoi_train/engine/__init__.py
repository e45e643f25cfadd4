"""The loop and what keeps it exact: checkpoints, randomness, signals."""
