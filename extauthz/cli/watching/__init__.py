"""The command that watches a running service."""
