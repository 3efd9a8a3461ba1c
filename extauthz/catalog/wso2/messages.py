"""Defines what the process that follows an API Manager is told, and what it tells."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final

DOCUMENT: Final = "catalog.json"
"""The name of the written catalog in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the process is started with, in JSON on the first line of its standard input.

    Attributes:
        username, password_file: empty where a registration token is used.
        token_file: with the registration token of a platform gateway (4.7); empty for none.
        ca_file: PEM of the authorities of its certificate; empty for the system's.
        folder: where the document is written.
        refresh_s: the pause between two full pulls.
        announce: whether the API Manager is told of this gateway (4.6 and later).
        labels: the gateway environments that this one stands for.
        brokers: URLs of the brokers whose events are listened to.
    """

    url: str
    username: str = ""
    password_file: str = ""
    token_file: str = ""
    ca_file: str = ""
    tenants: tuple[str, ...] = ()
    folder: str
    refresh_s: float = 300.0
    timeout_s: float = 30.0
    announce: bool = True
    labels: tuple[str, ...] = ("Default",)
    brokers: tuple[str, ...] = ()
    broker_username: str = ""
    broker_password_file: str = ""
    broker_ca_file: str = ""

    def write(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Parameters:
        """The parameters of a line."""
        tree = json.loads(line)
        lists = {name: tuple(value) for name, value in tree.items() if isinstance(value, list)}
        return cls(**{**tree, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A full pull succeeded, and its document is written.

    Attributes:
        rows: numbers of rows by table.
        is_changed: whether the document is another one than before.
        left_out: what is not in the document, a line each, some of them.
        left_out_count: of all.
    """

    KIND: ClassVar[str] = "pulled"
    rows: dict[str, int]
    is_changed: bool = True
    left_out: list[str] = field(default_factory=list)
    left_out_count: int = 0
    took_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PullFailed:
    """A full pull failed; the last document stays."""

    KIND: ClassVar[str] = "failed"
    message: str
    is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line for the log."""

    KIND: ClassVar[str] = "told"
    level: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A token was revoked, in force from now on. `expires_ms` is 0 when it is not known."""

    KIND: ClassVar[str] = "revoked"
    token_id: str = field(repr=False)
    expires_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """So many events of a kind came."""

    KIND: ClassVar[str] = "heard"
    kind: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A broker is connected, or is not any more, and why."""

    KIND: ClassVar[str] = "connected"
    broker: str
    is_up: bool
    why: str = ""


Message = Pulled | PullFailed | Told | Revoked | Heard | Connected
_KINDS: Final = {kind.KIND: kind for kind in (Pulled, PullFailed, Told, Revoked, Heard, Connected)}


def write_message(message: Message) -> bytes:
    """As one line."""
    return json.dumps([message.KIND, asdict(message)]).encode() + b"\n"


def read_message(line: bytes) -> Message:
    """The message of a line."""
    kind, tree = json.loads(line)
    made: Any = _KINDS[kind](**tree)
    return made  # type: ignore[no-any-return]
