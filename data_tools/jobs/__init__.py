"""Work divided over processes that may hang or die, on this machine or on a cluster."""
