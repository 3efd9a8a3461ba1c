"""Asks API Manager's internal data API, and reads its answers into rows.

It runs in a process of its own (`extauthz.catalog.wso2.process`), so it may block.

- A list comes whole: the API has no pages. It is read up to `MAX_BODY_BYTES`.
- The tenant is asked for with ``xWSO2Tenant``, which counts for callers of the super tenant alone.
- ``/revokedjwt`` is a list up to 4.2 and an object from 4.3; ``/keymanagers`` and ``/api-keys`` are
  lists without an envelope.
- What only later releases have answers 404 in earlier ones, and is then empty.

Source: wso2/product-apim, internal-api client, src/main/resources/api.yaml, at v4.0.0, v4.3.0 and
v4.6.0; wso2/carbon-apimgt, org.wso2.carbon.apimgt.internal.service.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from extauthz.catalog.wso2.rows import (
    Revoked,
    RowReader,
    Rows,
    api_key_of,
    application_key_of,
    subscription_key_of,
    tenant_of,
)
from extauthz.catalog.wso2.shapes import (
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
from extauthz.errors import CatalogError

PATH: Final = "/internal/data/v1"
ALL_TENANTS: Final = "ALL"
MAX_BODY_BYTES: Final = 512 * 1024 * 1024
POLICY_KINDS: Final = ("subscription", "application", "api")
_TENANT: Final = "xWSO2Tenant"
_CONNECT_S: Final = 10.0

_APIS: Final = RowReader(ApiRow, "API")
_APPLICATIONS: Final = RowReader(ApplicationRow, "application")
_SUBSCRIPTIONS: Final = RowReader(SubscriptionRow, "subscription")
_KEY_MAPPINGS: Final = RowReader(KeyMappingRow, "consumer key of the application with")
_POLICIES: Final = RowReader(PolicyRow, "throttling policy")
_GLOBAL_POLICIES: Final = RowReader(GlobalPolicyRow, "custom policy")
_KEY_MANAGERS: Final = RowReader(KeyManagerRow, "key manager")
_API_KEYS: Final = RowReader(ApiKeyRow, "API key")
_TOKENS: Final = RowReader(RevokedJwt, "revoked token")
_CONSUMER_KEYS: Final = RowReader(RevokedConsumerKey, "revoked consumer key")
_SUBJECTS: Final = RowReader(RevokedSubject, "revoked subject")


class NotAllowed(CatalogError):
    """The API Manager does not let this caller in."""


class NotThere(CatalogError):
    """There is nothing at this path: another release, or an API Manager that is still starting."""


class DataApi:
    """A client of one API Manager. Closed at the end of the block.

    Args:
        url: its base URL, like ``https://apim.example:9443``.
        credentials: user and password; None for a registration token.
        token: of a platform gateway (4.7), sent as ``api-key``; empty for none.
        ca: PEM of the authorities that may sign its certificate; empty for the system's.
        timeout_s: for each part of an answer.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: tuple[str, str] | None,
        token: str = "",
        ca: str = "",
        timeout_s: float = 30.0,
    ) -> None:
        verify = ssl.create_default_context(cadata=ca or None)
        if ca:
            verify.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._client = httpx2.Client(
            base_url=url.rstrip("/"),
            auth=credentials,
            headers={"api-key": token} if token else {},
            verify=verify,
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, tenant: str, query: Mapping[str, str] | None = None) -> Any:
        """The JSON at a path of the data API.

        Raises:
            NotAllowed: 401 or 403.
            NotThere: 404.
            CatalogError: no usable answer.
        """
        return self.ask("GET", f"{PATH}{path}", tenant=tenant, query=query)

    def ask(
        self,
        method: str,
        path: str,
        *,
        tenant: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Any:
        """The JSON that a path answers with; raises as `get` does."""
        headers = {"accept": "application/json"}
        if tenant:
            headers[_TENANT] = tenant
        try:
            with self._client.stream(
                method, path, params=dict(query or {}), headers=headers, json=body
            ) as response:
                _check_status(response, path)
                content = _read(response, path)
        except httpx2.TimeoutException as exc:
            raise CatalogError(f"{path}: no answer in time") from exc
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            raise CatalogError(f"{path}: {_say_failure(exc)}") from exc
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise CatalogError(f"{path}: answers no JSON") from exc

    def pull(self, tenants: tuple[str, ...], tell: Callable[[str], None]) -> Rows:
        """All tables of some tenants.

        Args:
            tenants: their domains, or `ALL_TENANTS` alone.
            tell: is told what has been read, for a user who waits.

        Raises:
            CatalogError: a list could not be read. There are then no rows at all.
        """
        reader = _Pull(self, tell)
        for tenant in tenants:
            reader.read(tenant)
        return reader.finish()


def _check_status(response: httpx2.Response, path: str) -> None:
    status = response.status_code
    if status in {401, 403}:
        raise NotAllowed(
            f"{path}: refused with {status}; check username and password_file: it must be an "
            "administrator of the super tenant, or of the only tenant that is read"
        )
    if status == 404:
        raise NotThere(f"{path}: answers 404; it may still be starting, or be another release")
    if status != 200:
        raise CatalogError(f"{path}: answers {status}")


def _read(response: httpx2.Response, path: str) -> bytes:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise CatalogError(f"{path}: answers more than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(content)


def _say_failure(error: BaseException) -> str:
    """Why there was no answer, without the URL, which may hold a password."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"its certificate was not accepted: {cause.verify_message}; name the "
                    "authority that signed it in ca"
                )
            case ConnectionRefusedError():
                return "connection refused"
            case OSError() if cause.strerror:
                return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


class _Pull:
    """Reads all tables, tenant by tenant."""

    def __init__(self, api: DataApi, tell: Callable[[str], None]) -> None:
        self._api = api
        self._tell = tell
        self._refused: list[str] = []
        self._tables: dict[str, dict[Hashable, Row]] = {}
        self._blocks: list[BlockRow] = []
        self._templates: dict[str, None] = {}
        self._revoked = Revoked()

    def read(self, tenant: str) -> None:
        """Adds the tables of a tenant.

        Raises:
            CatalogError: one of them could not be read.
        """
        # First what takes rights away: whatever comes later is not older.
        self._revoked = self._join_revoked(self._read_revoked(tenant))
        self._blocks.append(read_blocks(self._api.get("/block", tenant)))
        for template in self._get_bare(tenant, "/keyTemplates"):
            if isinstance(template, str):
                self._templates.setdefault(template)
        self._add("key_managers", self._get_bare(tenant, "/keymanagers"), _KEY_MANAGERS,
                  lambda row: (tenant_of(row.tenant or _named(tenant)), row.name))  # fmt: skip
        for kind in POLICY_KINDS:
            self._add(
                "policies",
                self._list(tenant, f"/{kind}-policies"),
                _POLICIES,
                partial(_policy_key, kind, tenant),
            )
        self._add("global_policies", self._list(tenant, "/global-policies", optional=True),
                  _GLOBAL_POLICIES,
                  lambda row: (tenant_of(row.tenant or _named(tenant)), row.name))  # fmt: skip
        self._add("apis", self._list(tenant, "/apis"), _APIS, api_key_of)
        self._add(
            "applications", self._list(tenant, "/applications"), _APPLICATIONS, application_key_of
        )
        self._add("key_mappings", self._list(tenant, "/application-key-mappings"), _KEY_MAPPINGS,
                  lambda row: (row.consumer_key, row.key_manager,
                               row.application_uuid or str(row.application_id)))  # fmt: skip
        self._add("subscriptions", self._list(tenant, "/subscriptions"), _SUBSCRIPTIONS,
                  subscription_key_of)  # fmt: skip
        self._add("api_keys", self._get_bare(tenant, "/api-keys", optional=True), _API_KEYS,
                  lambda row: row.digest)  # fmt: skip

    def finish(self) -> Rows:
        """What was read."""
        tables: dict[str, Any] = dict(self._tables)
        return Rows(
            **tables,
            blocks=tuple(self._blocks),
            key_templates=tuple(self._templates),
            revoked=self._revoked,
            refused=tuple(self._refused),
        )

    def _add(
        self,
        table: str,
        items: object,
        reader: RowReader[Any],
        key: Callable[[Any], Hashable],
    ) -> None:
        rows = reader.read(items, self._refused)
        self._tables.setdefault(table, {}).update((key(row), row) for row in rows)
        self._tell(f"{len(rows)} rows of {table.replace('_', ' ')}")

    def _list(self, tenant: str, path: str, *, optional: bool = False) -> object:
        """The list in an envelope."""
        try:
            answer = self._api.get(path, tenant)
        except NotThere:
            if optional:
                return []
            raise
        items = answer.get("list") if isinstance(answer, dict) else None
        if items is None and isinstance(answer, dict) and answer.get("count") == 0:
            return []
        if not isinstance(items, list):
            raise CatalogError(f"{PATH}{path}: holds no list")
        return items

    def _get_bare(self, tenant: str, path: str, *, optional: bool = False) -> list[Any]:
        """A list without an envelope."""
        try:
            answer = self._api.get(path, tenant)
        except NotThere:
            if optional:
                return []
            raise
        if isinstance(answer, dict) and isinstance(answer.get("list"), list):
            answer = answer["list"]
        if not isinstance(answer, list):
            raise CatalogError(f"{PATH}{path}: is no list")
        return answer

    def _read_revoked(self, tenant: str) -> Revoked:
        answer = self._api.get("/revokedjwt", tenant)
        return read_revoked(answer, self._refused)

    def _join_revoked(self, more: Revoked) -> Revoked:
        known = self._revoked
        return Revoked(
            tokens=(*known.tokens, *more.tokens),
            consumer_keys=(*known.consumer_keys, *more.consumer_keys),
            subjects=(*known.subjects, *more.subjects),
        )


def _policy_key(kind: str, tenant: str, row: PolicyRow) -> tuple[str, str, str]:
    return kind, tenant_of(row.tenant or _named(tenant)), row.name


def _named(tenant: str) -> str:
    return "" if tenant == ALL_TENANTS else tenant


def read_revoked(answer: Any, refused: list[str]) -> Revoked:
    """The revocations of ``/revokedjwt``.

    Raises:
        CatalogError: it has neither of its two forms.
    """
    if isinstance(answer, list):
        return Revoked(tokens=tuple(_TOKENS.read(answer, refused)))
    if not isinstance(answer, dict):
        raise CatalogError(f"{PATH}/revokedjwt: is neither a list nor an object")
    lists = (
        answer.get(name) or []
        for name in ("revokedJWTList", "revokedJWTConsumerKeyList", "revokedJWTSubjectEntityList")
    )
    tokens, consumer_keys, subjects = lists
    try:
        return Revoked(
            tokens=tuple(_TOKENS.read(tokens, refused)),
            consumer_keys=tuple(_CONSUMER_KEYS.read(consumer_keys, refused)),
            subjects=tuple(_SUBJECTS.read(subjects, refused)),
        )
    except ValueError as exc:
        raise CatalogError(f"{PATH}/revokedjwt: {exc}") from exc


def read_blocks(answer: Any) -> BlockRow:
    """The block conditions of ``/block``.

    Raises:
        CatalogError: they cannot be read. None may be lost: each takes a right away.
    """
    try:
        return BlockRow.model_validate(answer)
    except ValueError as exc:
        raise CatalogError(f"{PATH}/block: cannot be read: {type(exc).__name__}") from exc
