"""From a manifest to batches of frames."""
