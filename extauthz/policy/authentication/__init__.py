"""Step 2, who: credentials in their places, and what makes each of them good."""
