"""What a migration writes: the draft and its files."""
