"""What each adapter of Mixer did, carried over to a catalog."""
