"""The command ``hoi-data cache``: frames at training size in zip shards."""
