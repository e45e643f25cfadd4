"""Losses: one file a paper, one line in the table."""
