"""Says by its type how each value of a record is shown.

A record is a NamedTuple whose fields have the types below. The type checker refuses a plain string
of a request for any of them, and `list_fields` refuses a record with a field of another type, such
as `str` or `Secret`, when its module is imported. So a new field cannot be written before somebody
has decided how it is shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final, NewType, TypeAlias, get_args, get_origin, get_type_hints

from extauthz.model.deny_rules import read_address
from extauthz.model.identity import Secret

Instant = NewType("Instant", int)
"""Nanoseconds since the Unix epoch; shown as RFC 3339."""
Name = NewType("Name", str)
"""Of the catalog or the settings, or one of a closed set of words; shown as it is."""
Sentence = NewType("Sentence", str)
"""A text of the service's own; shown as it is."""
ClientText = NewType("ClientText", str)
"""What a client may choose freely, and what is no secret; shown up to `MAX_CLIENT_TEXT`."""
Digest = NewType("Digest", str)
"""A hash or a random number in hexadecimal digits; shown as it is."""
User = NewType("User", str)
"""Shown as `Masks.user` says."""
ConsumerKey = NewType("ConsumerKey", str)
"""Shown as a hash."""
ClientAddress = NewType("ClientAddress", str)
"""An IP address; shown as `Masks.client_address` says."""

MAX_CLIENT_TEXT: Final = 128
"""Characters that are shown of a text that a client chose."""
HASH_DIGITS: Final = 16
"""Hexadecimal digits of a hash."""

_MAX_REMEMBERED: Final = 4096
_NETWORK_BITS: Final = {4: 24, 6: 48}


class UserMask(Enum):
    """How users are shown. The value is the word in the settings."""

    FULL = "full"
    HASH = "hash"
    OFF = "off"


class AddressMask(Enum):
    """How the addresses of clients are shown. The value is the word in the settings."""

    FULL = "full"
    NETWORK = "network"
    """The network of the address: /24 of IPv4, /48 of IPv6."""
    HASH = "hash"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """How values are masked.

    Attributes:
        key: for hashes. Replicas with the same key write the same hash. Without a key, everybody
            can calculate the hash of a known text.
    """

    client_address: AddressMask = AddressMask.NETWORK
    user: UserMask = UserMask.HASH
    key: Secret | None = None

    def hash_text(self, text: str) -> str:
        """The first `HASH_DIGITS` of HMAC-SHA-256 under the key, or of SHA-256 without a key.

        The empty text, which means that there is nothing, stays empty.
        """
        if not text:
            return ""
        return _hash(text, None if self.key is None else self.key.reveal())

    def show_user(self, user: User) -> str:
        """A user, masked."""
        match self.user:
            case UserMask.FULL:
                return user
            case UserMask.HASH:
                return self.hash_text(user)
            case UserMask.OFF:
                return ""

    def show_address(self, address: ClientAddress) -> str:
        """An address, masked; empty when it is not known."""
        family, number = read_address(address)
        if family == 0:
            return ""
        match self.client_address:
            case AddressMask.FULL:
                return str(_make_address(family, number))
            case AddressMask.NETWORK:
                return _write_network(family, number)
            case AddressMask.HASH:
                return self.hash_text(str(_make_address(family, number)))
            case AddressMask.OFF:
                return ""


@lru_cache(maxsize=_MAX_REMEMBERED)
def _hash(text: str, key: str | None) -> str:
    octets = text.encode("utf-8", "surrogatepass")
    if key is None:
        return hashlib.sha256(octets).hexdigest()[:HASH_DIGITS]
    return hmac.digest(key.encode(), octets, "sha256").hex()[:HASH_DIGITS]


def _make_address(family: int, number: int) -> IPv4Address | IPv6Address:
    return IPv4Address(number) if family == 4 else IPv6Address(number)


@lru_cache(maxsize=_MAX_REMEMBERED)
def _write_network(family: int, number: int) -> str:
    address = _make_address(family, number)
    return str(ip_network((address, _NETWORK_BITS[family]), strict=False))


Shown: TypeAlias = "str | int | bool | list[Shown] | dict[str, Shown]"
Show: TypeAlias = Callable[[Any, Masks], Shown]


def _show_instant(instant_ns: Instant, _masks: Masks) -> str:
    return f"{_write_second(instant_ns // 1_000_000_000)}.{instant_ns // 1000 % 1_000_000:06}+00:00"


@lru_cache(maxsize=16)
def _write_second(unix_s: int) -> str:
    """Records come in the order of their time, many in a second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[:19]


_AS_IT_IS: Final = None
_SHOW: Final[Mapping[object, Show | None]] = {
    Name: _AS_IT_IS,
    Sentence: _AS_IT_IS,
    Digest: _AS_IT_IS,
    int: _AS_IT_IS,
    bool: _AS_IT_IS,
    Instant: _show_instant,
    ClientText: lambda text, _: text[:MAX_CLIENT_TEXT],
    User: lambda user, masks: masks.show_user(user),
    ConsumerKey: lambda key, masks: masks.hash_text(key),
    ClientAddress: lambda address, masks: masks.show_address(address),
}
"""How values are shown, by the type of their field."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a record in their order, and how those are shown that are not as they are."""

    names: tuple[str, ...]
    shows: tuple[tuple[str, Show], ...]
    in_order: tuple[tuple[str, Show | None], ...]


def list_fields(record: type[tuple[Any, ...]]) -> Fields:
    """How the fields of a record are shown.

    Raises:
        TypeError: the type of a field does not say how it is shown.
    """
    shows = {name: _find_show(name, hint) for name, hint in get_type_hints(record).items()}
    to_show = tuple((name, show) for name, show in shows.items() if show)
    return Fields(tuple(shows), to_show, tuple(shows.items()))


def write_fields(record: tuple[Any, ...], fields: Fields, masks: Masks) -> dict[str, Shown]:
    """The record as JSON can hold it, with everything masked."""
    shown = dict(zip(fields.names, record, strict=True))
    for name, show in fields.shows:
        shown[name] = show(shown[name], masks)
    return shown


def write_known_fields(
    record: tuple[Any, ...], fields: Fields, masks: Masks, unknown: frozenset[object]
) -> dict[str, Shown]:
    """As `write_fields`, without what is unknown, or not shown at all."""
    shown: dict[str, Shown] = {}
    for (name, show), value in zip(fields.in_order, record, strict=True):
        if value not in unknown:
            written = value if show is None else show(value, masks)
            if written != "":
                shown[name] = written
    return shown


def _find_show(name: str, hint: Any) -> Show | None:
    if get_origin(hint) is tuple:
        show = _find_show(name, get_args(hint)[0])
        if show is None:
            return lambda values, _: list(values)
        return lambda values, masks: [show(value, masks) for value in values]
    if isinstance(hint, type) and issubclass(hint, tuple):
        fields = list_fields(hint)
        return lambda record, masks: write_fields(record, fields, masks)
    if hint not in _SHOW:
        raise TypeError(f"{name} is a {hint}, which does not say how it is shown; see {__name__}")
    return _SHOW[hint]
