"""Readers: the frames asked for, or a ClipError that names the clip."""
