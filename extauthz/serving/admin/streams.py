"""Writes server-sent events (WHATWG HTML, 9.2), and sends them to readers of any speed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Final

from aiohttp import web

from extauthz.serving.admin.endpoints import EventStream

CONTENT_TYPE: Final = "text/event-stream"
BEAT_S: Final = 10.0
"""A comment is sent after so many seconds without an event: proxies close what seems dead."""
SLOW_S: Final = 10.0
"""A reader that takes nothing for so long is cut off."""
_BEAT: Final = b": still here\n\n"


def write_event(event: str, text: str, *, event_id: str = "") -> bytes:
    """An event whose data is one line of text."""
    named = f"id: {event_id}\n" if event_id else ""
    return f"event: {event}\n{named}data: {text}\n\n".encode()


def write_retry(after_ms: int) -> bytes:
    """Says when a client connects again after the stream has ended."""
    return f"retry: {after_ms}\n\n".encode()


async def send_events(
    request: web.BaseRequest, stream: EventStream, headers: dict[str, str]
) -> web.StreamResponse:
    """Sends the pieces until there are no more, or the client is gone or too slow."""
    response = web.StreamResponse(headers={**headers, "content-type": CONTENT_TYPE})
    response.force_close()
    await response.prepare(request)
    sent_s = time.monotonic()
    # A client that went away is no failure.
    with suppress(ConnectionError, TimeoutError):
        async with aclosing(stream.pieces) as pieces:
            async for piece in pieces:
                transport = request.transport
                if transport is None or transport.is_closing():
                    break
                if not piece and time.monotonic() < sent_s + BEAT_S:
                    continue
                async with asyncio.timeout(SLOW_S):
                    await response.write(piece or _BEAT)
                sent_s = time.monotonic()
    return response
