"""Measures of what decisions depend on: the calls of dependencies, and limits near their end."""
