"""What an operator asks of a service: explanations, its catalog, limits in use, and blocks."""
