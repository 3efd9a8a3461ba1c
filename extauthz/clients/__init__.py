"""HTTP clients of issuers: their keys, and what they say of an opaque token."""
