"""The door for Envoy: ext_authz on the wire, and the configuration that goes with it."""
