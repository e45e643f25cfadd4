"""Tools that turn videos and official annotations into a manifest."""
