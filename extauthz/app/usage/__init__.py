"""Opens what becomes of usage, from the settings."""
