"""Keeps the tables of an API Manager: what a full pull gave, amended by single look-ups."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from extauthz.catalog.wso2.shapes import (
    SUPER_TENANT,
    ApiKeyRow,
    ApiRow,
    ApplicationRow,
    BlockRow,
    GlobalPolicyRow,
    KeyManagerRow,
    KeyMappingRow,
    PolicyRow,
    RevokedConsumerKey,
    RevokedJwt,
    RevokedSubject,
    Row,
    SubscriptionRow,
)

_R = TypeVar("_R", bound=Row)

_NO_ROWS: Final[Mapping[Any, Row]] = MappingProxyType({})
MAX_TOLD: Final = 100
"""Rows that are told of one by one; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """Everything that was revoked."""

    tokens: tuple[RevokedJwt, ...] = ()
    consumer_keys: tuple[RevokedConsumerKey, ...] = ()
    subjects: tuple[RevokedSubject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All tables of all tenants that are read, each by what identifies a row of it.

    A value of this class is never changed: `amend` makes another one.

    Attributes:
        apis, applications: by UUID, or by number where a release has no UUIDs.
        subscriptions: by number.
        key_mappings: by consumer key and name of the key manager.
        policies: by kind ("subscription", "application", "api"), tenant and name.
        refused: what is wrong with rows that could not be read.
    """

    apis: Mapping[str, ApiRow] = field(default_factory=dict)
    applications: Mapping[str, ApplicationRow] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionRow] = field(default_factory=dict)
    key_mappings: Mapping[tuple[str, str, str], KeyMappingRow] = field(default_factory=dict)
    policies: Mapping[tuple[str, str, str], PolicyRow] = field(default_factory=dict)
    global_policies: Mapping[tuple[str, str], GlobalPolicyRow] = field(default_factory=dict)
    key_managers: Mapping[tuple[str, str], KeyManagerRow] = field(default_factory=dict)
    api_keys: Mapping[str, ApiKeyRow] = field(default_factory=dict)
    blocks: tuple[BlockRow, ...] = ()
    key_templates: tuple[str, ...] = ()
    revoked: Revoked = Revoked()
    refused: tuple[str, ...] = ()

    def amend(
        self, table: str, rows: Mapping[Any, Row] = _NO_ROWS, removed: Iterable[Hashable] = ()
    ) -> Rows:
        """The same tables with some rows of one replaced, added or removed."""
        amended = {**getattr(self, table), **rows}
        for key in removed:
            amended.pop(key, None)
        changes: dict[str, Any] = {table: amended}
        return replace(self, **changes)

    @property
    def is_empty(self) -> bool:
        """Whether there is no API and no application: what an API Manager answers that is not up."""
        return not self.apis and not self.applications


def api_key_of(row: ApiRow) -> str:
    """What identifies an API."""
    return row.uuid or str(row.id)


def application_key_of(row: ApplicationRow) -> str:
    """What identifies an application."""
    return row.uuid or str(row.id)


def subscription_key_of(row: SubscriptionRow) -> str:
    """What identifies a subscription."""
    return str(row.id) if row.id else row.uuid


def tenant_of(organization: str) -> str:
    """The tenant's domain; the super tenant's for none."""
    return organization or SUPER_TENANT


class RowReader(Generic[_R]):
    """Reads a list of rows of one kind; what cannot be read is left out, with a line for each."""

    def __init__(self, row: type[_R], what: str) -> None:
        self._list: TypeAdapter[list[_R]] = TypeAdapter(list[row])  # type: ignore[valid-type]
        self._one: TypeAdapter[_R] = TypeAdapter(row)
        self._what = what

    def read(self, items: object, refused: list[str]) -> list[_R]:
        """The rows.

        Args:
            items: what the list holds, from JSON.
            refused: gets a line for each row that cannot be read.

        Raises:
            ValueError: it is no list.
        """
        if not isinstance(items, list):
            raise ValueError("is no list")  # noqa: TRY004  (of a document, not of our caller)
        try:
            return self._list.validate_python(items)
        except ValidationError:
            rows = []
            for item in items:
                try:
                    rows.append(self._one.validate_python(item))
                except ValidationError as exc:
                    refused.append(f"{self._what} {name_row(item)}: {_say(exc)}")
            return rows


_IDENTIFYING: Final = (
    "name", "version", "uuid", "apiId", "id", "subscriptionId", "applicationId", "keyName",
)  # fmt: skip


def name_row(item: object) -> str:
    """Names a row for an operator, by what identifies it; never by a key or a secret."""
    if not isinstance(item, Mapping):
        return "without fields"
    named = [f"{key} {str(item[key])[:64]!r}" for key in _IDENTIFYING if item.get(key)]
    return ", ".join(named) or "without a name"


def _say(error: ValidationError) -> str:
    found: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place} {found['msg']}"
