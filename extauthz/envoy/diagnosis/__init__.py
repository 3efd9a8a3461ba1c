"""Why a running Envoy does not ask extauthz, or gets no answer: from what its admin interface says."""
