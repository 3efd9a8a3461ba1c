"""Each decision as a record: what is in it, what is masked, and where it is written."""
