"""What a trained run says: of a split, and of a video."""
