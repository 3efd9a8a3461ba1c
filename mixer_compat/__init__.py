"""The Istio Mixer door: an out-of-process adapter for Istio 1.1 to 1.7, over the same policy.

`proto/` holds Mixer's messages as far as they are used, `manifests` makes the objects that tell
Mixer about the adapter. This package knows the core and never Envoy's door.
"""
