"""Finds out from Envoy's admin interface why it does not ask extauthz, or gets no answer."""
