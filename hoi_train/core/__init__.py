"""Records and helpers that every package uses; imports no other package of ``hoi_train``."""
