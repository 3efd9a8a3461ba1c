"""The demonstration: a real Envoy, a sample upstream and the service, all on loopback."""
