"""The host that serves doors with grpcio."""
