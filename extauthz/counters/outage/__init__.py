"""Counting while the shared store is away, and the way back."""
