"""Step 5, how often: which counters a request takes from, and what the answer means."""
