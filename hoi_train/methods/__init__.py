"""Training procedures that need more than a loss."""
