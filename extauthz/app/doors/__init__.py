"""Opens the doors from the settings."""
