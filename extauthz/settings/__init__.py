"""The settings of an installation: what can be said, and how it is read."""
