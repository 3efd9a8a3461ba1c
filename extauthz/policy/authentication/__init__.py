"""Step 2, authentication: finds the caller's credential and checks it."""
