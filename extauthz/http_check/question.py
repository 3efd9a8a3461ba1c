"""Reads what a proxy asks over HTTP into the neutral request value, in each proxy's way of asking.

The path at which the door is asked says which way it is, so nothing has to be guessed:

``/envoy``
    Envoy's `http_service` and Istio's `envoyExtAuthzHttp`, with ``/envoy`` as the prefix of the
    path. Method, path, host and header fields are the request's own.
``/forward-auth``
    Traefik's ForwardAuth and Caddy's forward_auth: ``X-Forwarded-Method``, ``-Host``, ``-Uri``,
    ``-Proto`` and ``-For``.
``/auth-request``
    nginx's auth_request, with the fields that docs/how-to/http-check.md sets: ``X-Original-Method``,
    ``-Host``, ``-URI``, ``-Proto`` and ``-Address``.

A field that says what is asked about must be there, exactly once: when a proxy leaves one out, its
clients could write it. So a proxy that is not set up completely has every request refused.

The client's address:

- Traefik and Caddy write it as the last entry of ``X-Forwarded-For``, and nginx into its own field.
- Envoy writes it there only with `use_remote_address`, and does not tell whether it did. So it is
  known only where the settings say that it does (`credentials.use_remote_address`).

Sources: envoyproxy/envoy, source/extensions/filters/common/ext_authz/ext_authz_http_impl.cc;
https://doc.traefik.io/traefik/middlewares/http/forwardauth/;
https://caddyserver.com/docs/caddyfile/directives/forward_auth;
https://nginx.org/en/docs/http/ngx_http_auth_request_module.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from extauthz.errors import MalformedRequest
from extauthz.http_check.answer import Asker
from extauthz.model.request import NO_PEER, ApiRequest, Headers, Peer, read_field_value
from extauthz.model.routing.authority import find_host, read_host
from extauthz.serving.http_messages import Question

DOOR: Final = "http"
"""The name of this door."""

ENVOY_PATH: Final = "/envoy"
FORWARD_AUTH_PATH: Final = "/forward-auth"
AUTH_REQUEST_PATH: Final = "/auth-request"

_FORWARDED_FOR: Final = "x-forwarded-for"
_ALWAYS_FROM_ENVOY: Final = frozenset({"x-forwarded-proto", "x-request-id"})
"""What Envoy's connection manager adds to each request, so that every complete set has them."""
_ADDED_BY_ENVOY: Final = frozenset(
    {"x-envoy-auth-partial-body", "x-envoy-expected-rq-timeout-ms", "x-envoy-internal"}
)
"""What Envoy adds to the question itself."""


class _Names(NamedTuple):
    """The fields in which a proxy tells the parts of a request."""

    method: str
    host: str
    target: str
    scheme: str
    address: str
    """The last entry counts."""


_NAMES: Final = {
    Asker.FORWARD_AUTH: _Names(
        "x-forwarded-method",
        "x-forwarded-host",
        "x-forwarded-uri",
        "x-forwarded-proto",
        _FORWARDED_FOR,
    ),
    Asker.AUTH_REQUEST: _Names(
        "x-original-method",
        "x-original-host",
        "x-original-uri",
        "x-original-proto",
        "x-original-address",
    ),
}
_ASKERS: Final = {
    FORWARD_AUTH_PATH: Asker.FORWARD_AUTH,
    AUTH_REQUEST_PATH: Asker.AUTH_REQUEST,
}
_SEE: Final = "docs/how-to/http-check.md says how it is set up"


def find_asker(target: str) -> Asker | None:
    """Which kind of proxy asks at this request target; None when nothing is asked there."""
    path = target.partition("?")[0]
    if path.startswith(f"{ENVOY_PATH}/"):
        return Asker.ENVOY
    return _ASKERS.get(path)


def read_question(
    question: Question, asker: Asker, *, use_remote_address: bool | None = None
) -> ApiRequest:
    """The request that a question is about.

    Args:
        use_remote_address: `credentials.use_remote_address`, which counts for Envoy alone.

    Raises:
        MalformedRequest: the question does not say all that is needed; the text says what is
            missing.
    """
    if asker is Asker.ENVOY:
        return _read_envoy(question, use_remote_address=use_remote_address)
    return _read_told(question, _NAMES[asker])


def _read_envoy(question: Question, *, use_remote_address: bool | None) -> ApiRequest:
    fields = _decode(question.fields)
    names = {name for name, _ in fields}
    hosts = [value for name, value in fields if name == "host"]
    headers = Headers(
        (field for field in fields if field[0] not in _ADDED_BY_ENVOY), are_apart=False
    )
    entries = headers.get_all(_FORWARDED_FOR) if use_remote_address else ()
    source = Peer(address=entries[-1].rpartition(",")[2].strip()) if entries else NO_PEER
    return _make(
        method=question.method,
        target=question.target.removeprefix(ENVOY_PATH),
        host=read_host(hosts[0]) if len(hosts) == 1 else None,
        scheme=headers.get("x-forwarded-proto") or "",
        headers=headers,
        source=source,
        are_partial=not names >= _ALWAYS_FROM_ENVOY,
        size=_read_size(fields),
    )


def _read_told(question: Question, names: _Names) -> ApiRequest:
    """Reads a request whose parts are told in header fields."""
    fields = _decode(question.fields)
    values: dict[str, list[str]] = {name: [] for name in names}
    for name, value in fields:
        if name in values:
            values[name].append(value)
    for name, found in values.items():
        if not found:
            raise MalformedRequest(f"the proxy does not send {name}; {_SEE}")
        if len(found) > 1 and name != _FORWARDED_FOR:
            raise MalformedRequest(
                f"the proxy sends {name} twice, and a client may have written one of them; {_SEE}"
            )
    # The field "host" names this door, or what the proxy makes of it.
    told = {"host", names.method, names.host, names.target, names.scheme}
    headers = Headers((field for field in fields if field[0] not in told), are_apart=True)
    return _make(
        method=values[names.method][0],
        target=values[names.target][0],
        host=find_host(values[names.host]),
        scheme=values[names.scheme][0],
        headers=headers,
        source=Peer(address=values[names.address][-1].rpartition(",")[2].strip()),
    )


def _make(
    *,
    method: str,
    target: str,
    host: str | None,
    scheme: str,
    headers: Headers,
    source: Peer,
    are_partial: bool = False,
    size: int = -1,
) -> ApiRequest:
    path, _, query = target.partition("?")
    if not method or not path:
        raise MalformedRequest("the proxy tells no method or no path")
    return ApiRequest(
        method=method,
        host=host,
        path=path,
        query=query.partition("#")[0],
        scheme=scheme,
        headers=headers,
        headers_are_partial=are_partial,
        source=source,
        size=size,
        request_id=headers.get("x-request-id") or "",
        door=DOOR,
    )


def _decode(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), read_field_value(value)) for name, value in fields]


def _read_size(fields: Sequence[tuple[str, str]]) -> int:
    """The size of the body in bytes; -1 when it is not known."""
    sizes = [value for name, value in fields if name == "content-length"]
    return int(sizes[0]) if len(sizes) == 1 and sizes[0].isdecimal() else -1
