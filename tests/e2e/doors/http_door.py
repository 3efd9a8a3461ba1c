"""Asks a service at its door for checks over HTTP, as each kind of proxy does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Final

from extauthz.http_check.answer import STATUS_HEADER, Asker
from tests.e2e.doors.both_doors import ALLOWED, TURN_S, Answer, Asked, read_denial

Fields = tuple[tuple[str, str], ...]
_NOT_OF_THE_ANSWER: Final = frozenset({"content-length", "date", "server", "connection"})


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What the door answered, before a proxy makes something of it."""

    status: int
    headers: Mapping[str, str]
    body: str


def write_question(asked: Asked, asker: Asker) -> tuple[str, str, Fields]:
    """Method, target and fields of the question that a proxy asks about a request."""
    return _QUESTIONS[asker](asked)


def _as_envoy(asked: Asked) -> tuple[str, str, Fields]:
    names = dict.fromkeys(name for name, _ in asked.headers)
    # Envoy joins repeated fields.
    joined = tuple(
        (name, ",".join(value for other, value in asked.headers if other == name)) for name in names
    )
    own = (
        ("host", asked.host),
        ("x-forwarded-for", asked.client),
        ("x-forwarded-proto", "http"),
        ("x-request-id", asked.request_id or "1"),
        ("x-envoy-internal", "true"),
        ("x-envoy-expected-rq-timeout-ms", "1000"),
    )
    return asked.method, f"/envoy{asked.path}", (*own, *joined)


def _as_forward_auth(asked: Asked) -> tuple[str, str, Fields]:
    own = (
        ("host", "extauthz"),
        ("x-forwarded-method", asked.method),
        ("x-forwarded-host", asked.host),
        ("x-forwarded-uri", asked.path),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", asked.client),
    )
    return "GET", "/forward-auth", (*own, *asked.headers)


def _as_auth_request(asked: Asked) -> tuple[str, str, Fields]:
    own = (
        ("host", "extauthz"),
        ("x-original-method", asked.method),
        ("x-original-host", asked.host),
        ("x-original-uri", asked.path),
        ("x-original-proto", "http"),
        ("x-original-address", asked.client),
    )
    return asked.method, "/auth-request", (*own, *asked.headers)


_QUESTIONS: Final[Mapping[Asker, Callable[[Asked], tuple[str, str, Fields]]]] = {
    Asker.ENVOY: _as_envoy,
    Asker.FORWARD_AUTH: _as_forward_auth,
    Asker.AUTH_REQUEST: _as_auth_request,
}


def ask_http(address: str, asked: Asked, asker: Asker) -> HttpReply:
    """The door's answer to a proxy's question about a request."""
    return send(address, *write_question(asked, asker))


def send(address: str, method: str, target: str, fields: Fields) -> HttpReply:
    """One request, byte by byte as it is given."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=TURN_S) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        response = HTTPResponse(connection, method=method)
        response.begin()
        body = response.read().decode()
        headers = [(name.lower(), value) for name, value in response.getheaders()]
    assert len(dict(headers)) == len(headers), "no field stands twice"
    return HttpReply(response.status, dict(headers), body)


def read_reply(reply: HttpReply, envoys: Answer, asker: Asker) -> Answer:
    """The answer that a client gets, in the form in which the other doors' are compared.

    Args:
        envoys: the answer of Envoy's own door, whose reason and code this door does not tell.
        asker: the proxy.
    """
    if reply.status == 200:
        return Answer(reason=ALLOWED)
    headers = {
        name: value for name, value in reply.headers.items() if name not in _NOT_OF_THE_ANSWER
    }
    status = int(headers.pop(STATUS_HEADER, reply.status))
    if envoys.reason == "unavailable":
        assert reply.status == 503
    elif asker is Asker.AUTH_REQUEST:
        assert reply.status in {401, 403}
    elif asker is Asker.ENVOY:
        assert reply.status < 500
    if "content-type" not in envoys.headers:
        # Over HTTP no body comes without.
        assert headers.pop("content-type") == "text/plain; charset=utf-8"
    return read_denial(envoys.reason, envoys.code, status, headers, reply.body)
