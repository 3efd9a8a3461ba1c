"""Doors on the network: methods, the bound on their load, health, listeners, TLS and hosts."""
