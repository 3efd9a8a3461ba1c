"""Step 5, rate limits: which counters a request takes from, and what the answer means."""
