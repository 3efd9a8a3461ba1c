"""Envoy's messages, as far as they are used: same wire format, own package.

`*_pb2.py` and `*_pb2.pyi` are generated from the `.proto` files beside them by `.ci/protoc`.
"""
