"""Defines the entries of an emergency, blocks and revocations, and makes rules of them.

Entries do not refer to each other, so that a wrong one does not affect the others. An entry without
an ``id`` gets one that is computed from its content: the same block written again is the same
entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, AwareDatetime, ConfigDict, model_validator

from extauthz.catalog.documents.networks import parse_network
from extauthz.documents.document import Fits, Line, Name, StrictModel, write_schema
from extauthz.model.deny_rules import DenyRule, DenyRules
from extauthz.policy.authentication.revocations import Revocation, StandingOrders

MAX_ID: Final = 64
_ID_DIGITS: Final = 12
KEPT_AFTER_END_US: Final = 3_600_000_000
"""The least time for which an ended entry is kept, as clocks differ."""

EntryId = Annotated[
    str,
    Fits(
        r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$",
        "must have 1 to 64 letters, digits and ._:-, a letter or digit first",
    ),
]


def _check_network(text: str) -> str:
    return str(parse_network(text))


def _check_digest(text: str) -> str:
    digits = text.lower()
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise ValueError("is no SHA-256: write its 64 hexadecimal digits")
    return digits


def _check_time(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999 in UTC") from None


Time = Annotated[AwareDatetime, AfterValidator(_check_time)]
"""An instant, in UTC whatever zone it was written in."""


class _EntryDocument(StrictModel):
    """What every entry may say."""

    id: EntryId | None = None
    """Names the entry in logs, decisions and `extauthz unblock`; made of the rest if left out."""
    reason: Line = ""
    """Why, for whoever finds it later."""
    by: Line = ""
    """Who asked for it."""
    at: Time | None = None
    """When."""
    until: Time | None = None
    """When it ends by itself; never if left out."""

    @property
    def until_us(self) -> int | None:
        """`until` in microseconds since the epoch."""
        return None if self.until is None else write_us(self.until)


class BlockDocument(_EntryDocument):
    """Refuses what fits all that is given."""

    ip: Annotated[Name, AfterValidator(_check_network)] | None = None
    """Client address or network, like 203.0.113.0/24."""
    api: Name | None = None
    """Name of an API."""
    version: Name | None = None
    """Version of that API; all versions when left out."""
    application: Name | None = None
    """Name of an application."""
    consumer_key: Name | None = None
    """Consumer key (client id) of OAuth2 tokens."""
    user: Name | None = None
    """Name of a user."""

    @model_validator(mode="after")
    def _check(self) -> BlockDocument:
        if not self.conditions:
            raise ValueError(
                "has no condition and would refuse everything; "
                "add ip, application, consumer_key, api or user"
            )
        if self.version is not None and self.api is None:
            raise ValueError("version is of no API; add api")
        return self

    @property
    def conditions(self) -> dict[str, str]:
        """What is given, by key."""
        names = ("ip", "api", "version", "application", "consumer_key", "user")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class RevocationDocument(_EntryDocument):
    """Takes back a token, an API key, or all tokens of a consumer key or user."""

    jti: Name | None = None
    """The token's jti claim."""
    sha256: Annotated[str, AfterValidator(_check_digest)] | None = None
    """SHA-256 of an API key (or its HMAC, as the catalog has it), an opaque token, or a JWT
    without its signature, in 64 hexadecimal digits."""
    consumer_key: Name | None = None
    """Consumer key (client id) whose tokens are taken back; needs issued_before."""
    user: Name | None = None
    """User whose tokens are taken back; needs issued_before."""
    issuer: Name | None = None
    """Issuer of the jti, or of the tokens; any when left out."""
    issued_before: Time | None = None
    """Tokens issued at or after this time stay good."""

    @model_validator(mode="after")
    def _check(self) -> RevocationDocument:
        kinds = ("jti", "sha256", "consumer_key", "user")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"must have exactly one of {', '.join(kinds)}")
        takes_time = given[0] in ("consumer_key", "user")
        if takes_time is not (self.issued_before is not None):
            raise ValueError(
                "needs issued_before, like 2030-01-31T12:00:00Z"
                if takes_time
                else "issued_before goes with consumer_key or user; remove it"
            )
        if self.sha256 is not None and self.issuer is not None:
            raise ValueError("sha256 names one credential; remove issuer")
        return self

    @property
    def conditions(self) -> dict[str, str]:
        """What is given, by key, but for the time."""
        names = ("jti", "sha256", "consumer_key", "user", "issuer")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class EmergencyDocument(StrictModel):
    """Blocks and revocations: one file of them."""

    model_config = ConfigDict(title="extauthz blocks and revocations")

    deny: tuple[BlockDocument, ...] = ()
    """Who and what is refused."""
    revoked: tuple[RevocationDocument, ...] = ()
    """What was taken back."""


Document: TypeAlias = BlockDocument | RevocationDocument

SECTIONS: Final[Mapping[str, type[BlockDocument | RevocationDocument]]] = {
    "deny": BlockDocument,
    "revoked": RevocationDocument,
}
"""The keys of a file, and what their lists hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One block or revocation.

    Attributes:
        section: ``deny`` or ``revoked``.
        source: where it was read: a file's name, or ``redis``.
        order: the deny rule or revocation that decisions use.
    """

    id: str
    section: str
    document: Document
    source: str
    order: DenyRule | Revocation

    def is_over(self, now_us: int) -> bool:
        """Whether its time has ended."""
        until_us = self.order.until_us
        return until_us is not None and until_us <= now_us


def make_entry(section: str, document: Document, source: str = "") -> Entry:
    """Makes an entry with its own id, or one that is computed from its content."""
    name = document.id or make_id(section, document.conditions)
    order: DenyRule | Revocation
    if isinstance(document, BlockDocument):
        order = _make_rule(name, document, source)
    else:
        order = _make_revocation(name, document, source)
    return Entry(id=name, section=section, document=document, source=source, order=order)


def make_id(section: str, conditions: Mapping[str, str]) -> str:
    """The same for the same conditions."""
    text = json.dumps([section, sorted(conditions.items())])
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]
    return f"{'block' if section == 'deny' else 'revocation'}-{digits}"


def write_tree(document: Document) -> dict[str, Any]:
    """A document as it is written: what is given, times in UTC."""
    tree: dict[str, Any] = {}
    for name in type(document).model_fields:
        value = getattr(document, name)
        if isinstance(value, datetime):
            value = write_time(value)
        if value not in (None, ""):
            tree[name] = value
    return tree


def write_time(time: datetime) -> str:
    """Like 2030-01-31T12:00:00Z; fractions of a second are kept."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def write_us(time: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    since = time - datetime.fromtimestamp(0, UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def make_rules(entries: Iterable[Entry]) -> tuple[DenyRules, StandingOrders]:
    """Indexes the deny rules and revocations of some entries, for decisions."""
    rules: list[DenyRule] = []
    revocations: list[Revocation] = []
    for entry in entries:
        match entry.order:
            case DenyRule() as rule:
                rules.append(rule)
            case Revocation() as revocation:
                revocations.append(revocation)
    return DenyRules(rules), StandingOrders(revocations)


def _make_rule(name: str, block: BlockDocument, source: str) -> DenyRule:
    return DenyRule(
        name=name,
        network=None if block.ip is None else parse_network(block.ip),
        api=block.api,
        version=block.version,
        application=block.application,
        consumer_key=block.consumer_key,
        user=block.user,
        until_us=block.until_us,
        source=source,
    )


def _make_revocation(name: str, revoked: RevocationDocument, source: str) -> Revocation:
    before = revoked.issued_before
    return Revocation(
        name=name,
        token_id=revoked.jti or "",
        digest=bytes.fromhex(revoked.sha256 or ""),
        consumer_key=revoked.consumer_key or "",
        user=revoked.user or "",
        issuer=revoked.issuer or "",
        issued_before_us=0 if before is None else write_us(before),
        until_us=revoked.until_us,
        source=source,
    )


def emergency_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file with blocks and revocations, for editors."""
    return write_schema(EmergencyDocument)
