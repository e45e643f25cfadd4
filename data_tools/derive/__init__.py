"""Clips and frames made from a manifest's, which training reads faster."""
