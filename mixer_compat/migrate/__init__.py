"""Turns Mixer-era Kubernetes objects into a catalog, settings and Istio policies.

Three rules hold everywhere:

- Nothing is dropped silently. Every field of every object is either carried, or stands in the
  report; `objects` counts the fields that were read, and the rest is reported.
- What cannot be said exactly is said on the safe side: guarded more, counted together, refused.
  The report then says so.
- No secret is read: access tokens, keys and the contents of Secrets appear nowhere.
"""
