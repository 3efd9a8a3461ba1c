"""Blocks of very hot counters, taken from the shared store in advance and spent from memory."""
