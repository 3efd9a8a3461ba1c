"""Usage: a line for each request that a proxy reported, and where the lines are written."""
