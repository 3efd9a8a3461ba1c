"""The admin listener: health, readiness, metrics and an API over HTTP."""
