"""The command ``hoi-data verify``: which clips can be trained on."""
