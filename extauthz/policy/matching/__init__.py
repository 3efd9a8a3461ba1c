"""Step 1, which API and resource."""
