"""API keys: those whose digest is in the catalog, and signed ones, which are JWTs."""
