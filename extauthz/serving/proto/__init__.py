"""gRPC's health messages: same wire format, own package.

`*_pb2.py` and `*_pb2.pyi` are generated from the `.proto` files beside them by `.ci/protoc`.
"""
