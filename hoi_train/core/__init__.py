"""The foundation: records and what every package builds on. It imports nothing above it."""
