"""Defines the request that policy decides on. Both doors translate their wire format into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from extauthz.model.identity import Place, Secret
from extauthz.model.values import request_value

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING  # shared: dataclasses take no mapping as a plain default


_NONE_REPEATED: Final[dict[str, tuple[str, ...]]] = {}


def read_field_value(value: str | bytes) -> str:
    """Decodes UTF-8, else Latin-1, in which every byte is valid (RFC 9110 5.5, obs-text)."""
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Headers:
    """Immutable header fields; names are lower-case, repeated fields are kept apart.

    Look names up in lower case: that saves a `lower()` for each look-up.
    """

    __slots__ = ("_first", "_repeated", "are_apart", "has_underscores")

    are_apart: bool
    """Whether a comma in a value is certainly the client's. Else it may separate two fields that a
    proxy has joined (RFC 9110 5.3)."""
    has_underscores: bool
    """Whether there is an underscore in any name."""

    def __init__(
        self,
        fields: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        are_apart: bool = False,
    ) -> None:
        first: dict[str, str] = {}
        repeated: dict[str, list[str]] = {}
        for name, value in fields.items() if isinstance(fields, Mapping) else fields:
            name = name.lower()
            if name in first:
                repeated.setdefault(name, [first[name]]).append(value)
            else:
                first[name] = value
        self._first: dict[str, str | bytes] = dict(first)
        self._repeated = {name: tuple(values) for name, values in repeated.items()}
        self.are_apart = are_apart
        self.has_underscores = "_" in "".join(first)

    @classmethod
    def of_dict(cls, fields: dict[str, str | bytes], *, are_apart: bool = False) -> Headers:
        """As the constructor, but may keep the dict itself, which must not change any more.

        Bytes are decoded when they are first read.
        """
        names = "".join(fields)
        if not names.islower():
            texts = {name: read_field_value(value) for name, value in fields.items()}
            return cls(texts, are_apart=are_apart)
        # A proxy's names are in lower case; one check is faster than lowering each name.
        made = cls.__new__(cls)
        made._first, made._repeated = fields, _NONE_REPEATED  # noqa: SLF001  (its own)
        made.are_apart = are_apart
        made.has_underscores = "_" in names
        return made

    def get(self, name: str) -> str | None:
        """The first value of a field, or None."""
        value = self._first.get(name)
        if value.__class__ is bytes:
            value = self._first[name] = read_field_value(value)
        return value  # type: ignore[return-value]

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of a field, in the order of arrival; empty when there is none."""
        if name in self._repeated:
            return self._repeated[name]
        value = self.get(name)
        return () if value is None else (value,)

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __len__(self) -> int:
        return len(self._first)

    def __repr__(self) -> str:
        # Values may be credentials: only names are shown.
        return f"Headers({', '.join(self._first)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One end of the connection, as the proxy saw it.

    Attributes:
        address: IP address without port; empty when there is none, or when it is unknown.
        is_local: there is no address, as it came through a Unix socket or from inside the proxy.
        principal: the certificate's URI SAN, else DNS SAN, else subject; empty without TLS.
        certificate: PEM text; empty unless the proxy sends it.
        service: the name the proxy gives the peer (canonical service or service cluster).
        labels: workload labels, as the proxy sends them.
    """

    address: str = ""
    principal: str = ""
    certificate: str = field(default="", repr=False)
    service: str = ""
    labels: Mapping[str, str] = field(default_factory=_nothing)
    is_local: bool = False


NO_PEER: Final = Peer()
NO_HEADERS: Final = Headers()


@request_value(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """One request to an API, as the proxy received it.

    Attributes:
        method: as sent, upper-case for all standard methods.
        host: as `extauthz.model.routing.authority` reads it; empty when there is no authority, None
            when the authority is no valid host, or when there are several.
        headers_are_partial: the proxy keeps some header fields to itself.
        path: as sent, still percent-encoded, without the query.
        query: the text after the first ``?``, still percent-encoded.
        context: context extensions of the route (``extauthz.api`` names the API).
        metadata, route_metadata: namespaces to values, as far as the proxy sends them.
        body: as far as the proxy sends it; `body_is_partial` when it was cut.
        size: of the whole body in bytes, -1 when unknown.
        request_id: the proxy's id of the request.
        api_key: a key whose place in the request is not known.
        door: the door that it came to, for logs: ``envoy`` or ``mixer``.
        found: a cache of `extauthz.policy.request.parameters`, by place.
    """

    method: str
    host: str | None
    path: str
    query: str = ""
    scheme: str = ""
    protocol: str = ""
    headers: Headers = NO_HEADERS
    headers_are_partial: bool = False
    source: Peer = NO_PEER
    destination: Peer = NO_PEER
    context: Mapping[str, str] = field(default_factory=_nothing)
    metadata: Mapping[str, Any] = field(default_factory=_nothing)
    route_metadata: Mapping[str, Any] = field(default_factory=_nothing)
    sni: str = ""
    body: bytes = field(default=b"", repr=False)
    body_is_partial: bool = False
    size: int = -1
    request_id: str = ""
    api_key: Secret | None = None
    door: str = "envoy"
    found: dict[Place, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def is_grpc(self) -> bool:
        """Whether the caller is a gRPC client, which needs answers in gRPC's form."""
        content_type = self.headers.get("content-type")
        return content_type is not None and content_type.startswith("application/grpc")
