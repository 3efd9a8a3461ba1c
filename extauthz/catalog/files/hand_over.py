"""Sends the parts of a catalog from the process that read them to the process that decides.

It is a stream of small messages, so that each is processed quickly: one outcome, and when that is a
`Begin`, the parts in pieces until `End`. `Logged` may come at any time. An object that many parts
share, like a tier or an application, is sent once and then referred to by its number, so that it is
one object on the other side, too.

Messages are pickled. They come over a pipe that only this process and its child hold.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypeVar

from extauthz.catalog.files.reading import Stamp
from extauthz.catalog.parts import CatalogParts, refuse_routes
from extauthz.errors import Problem
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.model.conditions import Pattern
from extauthz.model.limits import Tier
from extauthz.model.routing.route_table import BasePathConflict
from extauthz.model.routing.templates import TemplateError
from extauthz.model.subscriptions import SubscriptionTerms

RESOURCES: Final = 200
SMALL: Final = 400
SUBSCRIPTIONS: Final = 4_000
"""Number of resources, subscriptions and other parts in one message, which then takes about two
milliseconds to process. An API is never split from its resources."""
_LENGTH: Final = struct.Struct(">I")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Logged:
    """Something that the child would have logged."""

    logger: str
    level: int
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Outcome: the catalog is not usable."""

    problems: tuple[Problem, ...]
    stamps: dict[Path, Stamp]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Outcome: the files hold what they held before."""

    stamps: dict[Path, Stamp]


@dataclass(frozen=True, slots=True)
class Failed:
    """Outcome: the child had an unforeseen error."""

    message: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Outcome: a good catalog, of this revision."""

    revision: str
    stamps: dict[Path, Stamp]


@dataclass(frozen=True, slots=True)
class First:
    """Some of the parts that are needed before the catalog can be made: arguments of `Catalog`."""

    fields: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Terms:
    """Some of the terms of subscriptions."""

    terms: Sequence[SubscriptionTerms]


@dataclass(frozen=True, slots=True)
class More:
    """Some of the parts that are added afterwards: arguments of `Catalog.extend`."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subscribers:
    """Subscriptions of some APIs.

    Attributes:
        apis: for each API its number, and the number of its subscriptions.
        applications, terms: for each subscription their numbers, as arrays.
    """

    apis: list[tuple[int, int]]
    applications: bytes
    terms: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The end of the stream."""


Piece: TypeAlias = Begin | First | Terms | More | Subscribers
Message: TypeAlias = Logged | Refused | Unchanged | Failed | Piece | End


# Sending


def _reduce_pattern(pattern: Pattern) -> tuple[type[Pattern], tuple[str]]:
    return Pattern, (pattern.text,)  # what RE2 made of it cannot travel


class _Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[Pattern] = _reduce_pattern

    def __init__(self, stream: IO[bytes], numbers: Mapping[int, int]) -> None:
        super().__init__(stream, protocol=5)
        self._numbers = numbers

    def persistent_id(self, value: object) -> int | None:
        if type(value) is Application or type(value) is Tier:
            return self._numbers.get(id(value))
        return None


class Sender:
    """Writes messages to a stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._numbers: dict[int, int] = {}
        """By identity: the numbers of the objects that were sent."""

    def send(self, message: Message) -> None:
        """Writes one message."""
        frame = io.BytesIO()
        _Pickler(frame, self._numbers).dump(message)
        self._stream.write(_LENGTH.pack(frame.tell()))
        self._stream.write(frame.getbuffer())
        if not isinstance(message, First | Terms | More | Subscribers):
            self._stream.flush()

    def send_parts(self, parts: CatalogParts, revision: str, stamps: dict[Path, Stamp]) -> None:
        """Writes a whole catalog."""
        all_terms = {
            id(terms): terms
            for _, _, of_api in parts.subscriptions.list_by_api()
            for terms in of_api.values()
        }
        self.send(Begin(revision, stamps))
        for tiers in _cut(parts.tiers, SMALL):
            self.send(First({"tiers": tiers}))
            self._number(tiers)
        for name in ("issuers", "api_key_signers", "deny_rules", "custom_limits", "warnings"):
            for some in _cut(getattr(parts, name), SMALL):
                self.send(First({name: some}))
        for terms in _cut(all_terms.values(), SMALL):
            self.send(Terms(terms))
        for applications in _cut(parts.applications, SMALL):
            self.send(More({"applications": applications}))
            self._number(applications)
        for apis in _cut(parts.apis, RESOURCES, lambda api: 1 + len(api.resources)):
            self.send(More({"apis": apis}))
        self._send_subscriptions(parts, {key: at for at, key in enumerate(all_terms)})
        for keys in _cut(parts.api_keys, SMALL):
            self.send(More({"api_keys": keys}))
        for name in ("consumer_keys", "certificates"):
            for items in _cut(getattr(parts, name).items(), SMALL):
                self.send(More({name: dict(items)}))
        for revoked in _cut(parts.revoked, SMALL):
            self.send(More({"revoked": revoked}))
        self.send(End())

    def _number(self, values: Iterable[object]) -> None:
        for value in values:
            self._numbers[id(value)] = len(self._numbers)

    def _send_subscriptions(self, parts: CatalogParts, terms: Mapping[int, int]) -> None:
        applications = {it.name: number for number, it in enumerate(parts.applications)}
        apis = {(api.name, api.version): number for number, api in enumerate(parts.apis)}
        numbers = (
            (apis[api, version], applications[name], terms[id(it)])
            for api, version, of_api in parts.subscriptions.list_by_api()
            for name, it in of_api.items()
        )
        for piece in _cut(numbers, SUBSCRIPTIONS):
            self.send(
                Subscribers(
                    [(api, len(list(same))) for api, same in groupby(api for api, _, _ in piece)],
                    array("I", (application for _, application, _ in piece)).tobytes(),
                    array("I", (its_terms for _, _, its_terms in piece)).tobytes(),
                )
            )


def _cut(
    values: Iterable[_T], at_least: int, weigh: Callable[[_T], int] = lambda _: 1
) -> Iterator[list[_T]]:
    """Pieces of this weight, and of what is left."""
    piece: list[_T] = []
    weight = 0
    for value in values:
        piece.append(value)
        weight += weigh(value)
        if weight >= at_least:
            yield piece
            piece, weight = [], 0
    if piece:
        yield piece


# Receiving


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next message, still pickled; None when the stream ended."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(length)
    frame = stream.read(size)
    return frame if len(frame) == size else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], numbered: list[object]) -> None:
        super().__init__(stream)
        self._numbered = numbered

    def persistent_load(self, number: Any) -> object:
        return self._numbered[number]


class Receiver:
    """Reads messages, and builds the catalog from them."""

    def __init__(self) -> None:
        self._numbered: list[object] = []
        self._apis: list[Api] = []
        self._applications: list[str] = []
        self._terms: list[SubscriptionTerms] = []
        self._revision = ""
        self._first: defaultdict[str, list[Any]] = defaultdict(list)
        self._catalog: Catalog | None = None

    def read(self, frame: bytes) -> Message:
        """A message."""
        message: Message = _Unpickler(io.BytesIO(frame), self._numbered).load()
        return message

    def take(self, message: Piece) -> None:
        """Adds the parts of a message to the catalog.

        Raises:
            ConfigError: its routes contradict each other.
        """
        match message:
            case Begin():
                self._revision = message.revision
            case First():
                for name, values in message.fields.items():
                    self._first[name] += values
                self._numbered += message.fields.get("tiers", ())
            case Terms():
                self._terms += message.terms
            case More():
                self._take_more(message.fields)
            case Subscribers():
                self._take_subscribers(message)

    @property
    def catalog(self) -> Catalog:
        """The catalog so far. No `First` may come afterwards."""
        if self._catalog is None:
            fields: dict[str, Any] = {**self._first, "revision": self._revision}
            self._catalog = Catalog(**fields)
        return self._catalog

    def _take_more(self, fields: Mapping[str, Any]) -> None:
        try:
            self.catalog.extend(**fields)
        except (BasePathConflict, TemplateError) as exc:
            raise refuse_routes(exc) from exc
        applications: list[Application] = fields.get("applications", [])
        self._numbered += applications
        self._applications += (it.name for it in applications)
        self._apis += fields.get("apis", ())

    def _take_subscribers(self, message: Subscribers) -> None:
        names = map(self._applications.__getitem__, array("I", message.applications))
        terms = map(self._terms.__getitem__, array("I", message.terms))
        subscribers = zip(names, terms, strict=True)
        for number, count in message.apis:
            api = self._apis[number]
            its = islice(subscribers, count)
            self.catalog.subscriptions.add_to_api(api.name, api.version, its)
