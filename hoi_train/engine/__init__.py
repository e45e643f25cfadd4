"""Training and evaluation of a run, with checkpoints that resume bit-identically."""
