"""Step 1, matching: finds the API and resource of a request."""
