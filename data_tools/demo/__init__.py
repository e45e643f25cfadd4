"""Generate the synthetic demo set of hands and objects (``hoi-data demo``)."""
