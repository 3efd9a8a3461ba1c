"""A server and a client of it, for sources that ask over HTTP."""

from __future__ import annotations

from tests.clients.conftest import clock, http, server

__all__ = ["clock", "http", "server"]
