"""Writes the results of a migration: the draft and its files."""
