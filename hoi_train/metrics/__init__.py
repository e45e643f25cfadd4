"""Per-class results first, averages last."""
