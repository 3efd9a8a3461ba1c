"""Counts in Redis, shared by every replica."""
