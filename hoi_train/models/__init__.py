"""Backbones, poolings, heads and the recognizer that joins them."""
