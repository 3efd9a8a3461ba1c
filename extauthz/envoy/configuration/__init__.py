"""Envoy's configuration: printing our own, and checking somebody else's."""
