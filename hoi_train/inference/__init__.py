"""Evaluate a trained run on a split and predict videos with it."""
