"""Backbones, heads and the recognizer that joins them."""
