"""Reads the body of an HTTP response up to a maximum size."""

from __future__ import annotations

from typing import Final

import httpx2

IDENTITY_ENCODING: Final = {"accept-encoding": "identity"}
"""Requests an uncompressed body, so that its size is known before it is in memory."""


class UnusableBody(ValueError):
    """The body is too large, or compressed although that was not requested."""


async def read_body(response: httpx2.Response, *, max_bytes: int) -> bytes:
    """The body of a streamed response.

    Raises:
        UnusableBody: it is larger than `max_bytes`, or compressed.
        httpx2.HTTPError: it did not arrive whole.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnusableBody("compressed, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise UnusableBody(f"larger than {max_bytes} bytes")
    return bytes(body)
