"""The command ``hoi-data reencode``: clips cut and encoded so that any frame is cheap to read."""
