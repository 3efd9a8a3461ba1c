"""Reads the bodies of requests, which a client may send as slowly as it likes, or never to the end.

A body is read before its request takes one of the places for being answered, so that a slow one
keeps nobody out. It must be there within `BODY_S`. `MAX_WAITING` bodies are waited for at most; one
more ends the wait for the oldest: a body of the API has some hundred bytes, which come at once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import HttpVersion11, web

from extauthz.serving.admin.errors import ApiError

JSON: Final = "application/json"
MAX_BODY_BYTES: Final = 65_536
BODY_S: Final = 5.0
MAX_WAITING: Final = 20
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Bodies:
    """Reads bodies, some at a time. `body_s` and `max_waiting`: see the module."""

    def __init__(self, *, body_s: float = BODY_S, max_waiting: int = MAX_WAITING) -> None:
        self._body_s = body_s
        self._max_waiting = max_waiting
        self._waits: dict[asyncio.Timeout, None] = {}
        """For each body that is waited for, the oldest first."""

    async def read(self, request: web.BaseRequest) -> bytes:
        """The whole body, which must be JSON.

        Raises:
            ApiError: 400, 408, 413 or 415: it is not JSON, too large, or not there in time.
        """
        # A page of another origin cannot send this type by itself.
        if request.content_type != JSON or "content-encoding" in request.headers:
            raise ApiError(415, "not_json", f"send the body as {JSON}, not compressed")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise _too_large()
        if len(self._waits) >= self._max_waiting:
            oldest = next(iter(self._waits))
            del self._waits[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
        wait = asyncio.timeout(self._body_s)
        self._waits[wait] = None
        try:
            async with wait:
                return await _read(request)
        except TimeoutError:
            message = "the body did not come to its end in time; send it at once"
            raise ApiError(408, "body_late", message) from None
        except ConnectionError:  # nobody reads this, and it is no failure for the log
            message = "the connection ended before the body"
            raise ApiError(400, "body_incomplete", message) from None
        finally:
            self._waits.pop(wait, None)


async def _read(request: web.BaseRequest) -> bytes:
    if "expect" in request.headers and request.version >= HttpVersion11:
        # RFC 9110 10.1.1: a client that asks first waits for this, curl for a second.
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # it is no part of the answer
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> ApiError:
    return ApiError(413, "body_too_large", f"a body has {MAX_BODY_BYTES} bytes at most")
