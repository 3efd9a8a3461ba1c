"""Converts the configuration of each of Mixer's adapters to parts of a catalog."""
