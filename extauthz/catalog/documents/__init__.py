"""Catalogs as users write them: their shape, and what the model is built from."""
