"""The record of a run: local JSONL is the truth, wandb mirrors it."""
