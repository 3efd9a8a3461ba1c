"""Turns Mixer-era Kubernetes objects into a catalog, settings and Istio policies.

Three rules hold everywhere:

- Nothing is dropped silently. Every field of every object is either converted or listed in the
  report: `reading.objects` keeps track of the fields that were read, and all others are reported.
- What has no exact equivalent becomes stricter, never looser: more requests are guarded, counted
  together or refused. The report then says so.
- No secret is read: access tokens, keys and the contents of Secrets are never written anywhere.
"""
