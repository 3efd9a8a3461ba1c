"""What a migration reads: objects, the names between them, and Mixer's expressions."""
