"""Mixer's messages, as far as they are used: same names and wire format, own files.

`*_pb2.py` and `*_pb2.pyi` are generated from the `.proto` files in the same folder by `.ci/protoc`.
Mixer itself also gets the template files (`mixer_compat.manifests.objects`). It looks their
messages up by name, so packages and messages have Istio's names, but file paths are free.
"""
