"""The command ``hoi-data stats``: what is in a manifest."""
