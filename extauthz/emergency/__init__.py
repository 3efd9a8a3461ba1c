"""Blocks and revocations that are in force within a second, whatever the catalog says."""
