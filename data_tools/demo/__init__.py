"""The command ``hoi-data demo``: a synthetic set of hands and objects."""
