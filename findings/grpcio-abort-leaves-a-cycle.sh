#!/usr/bin/env bash
# Question: a handler of grpcio's asyncio server ends its call with `await context.abort(...)`, which is how a status is
#   given. What is left of the call when it is over?
# Wrong belief: nothing, or little: reference counts free it, as they free a call that is answered.
# Seen: grpcio keeps the error that abort raises in the call's state. The error's traceback holds the handler's
#   frames, those hold the context, and that the state: a cycle. Each aborted call waits, with its tasks, coroutines
#   and all that the handler's frames name, for Python's cyclic collector: 25 objects and more where an answered call
#   leaves 5. A server that refuses thousands of calls stands still while they are found. A handler that clears the
#   error's traceback once its task has ended (`loop.call_soon`) leaves 5, too.
# Versions: grpcio 1.85.1; CPython 3.11.
# Source: observed; grpc/_cython/_cygrpc/aio/server.pyx.pxi, `abort` and `RPCState.abort_exception`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check grpcio==1.85.1
cat >run.py <<'PYTHON'
"""Calls that are answered, aborted, and aborted with care; what the collector finds of them."""

import asyncio
import gc
import sys

import grpc

CALLS = 1000


async def answer(request, context):
    return request


async def abort(request, context):
    await context.abort(grpc.StatusCode.NOT_FOUND, "nothing there")


async def abort_with_care(request, context):
    try:
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing there")
    except grpc.aio.AbortError as error:
        asyncio.get_running_loop().call_soon(error.with_traceback, None)
        raise


async def call_often(address, name):
    # The caller runs in another process, so that what it leaves is not counted.
    caller = await asyncio.create_subprocess_exec(sys.executable, __file__, address, name)
    if await caller.wait():
        sys.exit("the caller failed")


async def serve():
    server = grpc.aio.server()
    handlers = {
        handle.__name__: grpc.unary_unary_rpc_method_handler(handle)
        for handle in (answer, abort, abort_with_care)
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", handlers)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    seen = {}
    for name in handlers:
        await call_often(address, name)
        gc.collect()
        gc.disable()
        await call_often(address, name)
        seen[name] = gc.collect() / CALLS
        gc.enable()
    await server.stop(0)
    return seen


def ask(address, name):
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(f"/a.B/{name}")
        for _ in range(CALLS):
            try:
                method(b"")
            except grpc.RpcError:
                pass


if sys.argv[1:]:
    ask(*sys.argv[1:])
    sys.exit()
seen = asyncio.run(serve())
for name, objects in seen.items():
    print(f"{name}: {objects:.1f} objects of each call are left for the collector")
as_told = seen["answer"] < 8 and seen["abort"] > 20 and seen["abort_with_care"] < 8
sys.exit(0 if as_told else "this has changed")
PYTHON
venv/bin/python run.py
