"""Mixer's messages, as far as they are used: same names and wire format, own files.

`*_pb2.py` and `*_pb2.pyi` are generated from the `.proto` files beside them by `.ci/protoc`.
The template files are also what Mixer itself is given (`mixer_compat.manifests.objects`): it looks their
messages up by name, so packages and messages are called as in Istio, while file paths are free.
"""
