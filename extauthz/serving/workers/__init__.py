"""Several processes that serve the same doors, and how they are steered."""
