"""Writes rows of an API Manager as a catalog document."""
