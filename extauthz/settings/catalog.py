"""The settings of the catalog: its files, and the API Manager that it is read from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema

from extauthz.documents.document import Name, PositiveDuration, StrictModel

_SUPER_TENANT: Final = "carbon.super"


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL like https://apim.example:9443") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("must be a URL like https://apim.example:9443")
    if parts.username or parts.password:
        raise ValueError("must hold no user and no password; use username and password_file")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must end with the host and port; the paths of API Manager are added")
    return url.rstrip("/")


def _check_broker(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL like amqps://apim.example:8672") from None
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname or port == 0:
        raise ValueError("must be a URL like amqps://apim.example:8672")
    if parts.username or parts.password:
        raise ValueError("must hold no user and no password; use username and password_file")
    return url


def _read_brokers(value: object) -> object:
    """A URL alone, or a list of them, stands for a mapping with ``urls``."""
    if isinstance(value, str):
        return {"urls": [value]}
    return {"urls": value} if isinstance(value, list | tuple) else value


class _OrUrls:
    """Tells the JSON Schema that URLs may stand instead."""

    @staticmethod
    def __get_pydantic_json_schema__(
        core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        url = {"type": "string", "format": "uri"}
        return {"anyOf": [url, {"type": "array", "items": url, "minItems": 1}, handler(core)]}


class EventSettings(StrictModel):
    """The brokers of API Manager's event hub. A URL alone may stand here."""

    urls: tuple[Annotated[Name, AfterValidator(_check_broker)], ...] = Field(min_length=1)
    """All brokers, one for each Traffic Manager, like amqps://apim.example:8672; a path names the
    virtual host."""
    username: Name | None = None
    """The user; that of the API Manager when left out."""
    password_file: Path | None = None
    """File with its password; that of the API Manager when left out."""
    ca: Path | None = None
    """PEM file: who may sign their certificates; that of the API Manager when left out."""


class Wso2Settings(StrictModel):
    """A WSO2 API Manager, 4.0 or later, whose APIs and applications are the catalog."""

    url: Annotated[Name, AfterValidator(_check_url)]
    """Where its services are, like https://apim.example:9443."""
    username: Name
    """An administrator: of the super tenant, or of the only tenant that is read."""
    password_file: Path
    """File with its password; read again with each pull."""
    ca: Path | None = None
    """PEM file: who may sign its certificate, instead of the system's authorities."""
    tenants: Literal["ALL"] | tuple[Name, ...] = Field(default=(_SUPER_TENANT,), min_length=1)
    """Domains of the tenants that are read, or ALL."""
    refresh: PositiveDuration = 300_000_000
    """How often everything is read again."""
    timeout: PositiveDuration = 30_000_000
    """How long one part of an answer may take."""
    events: Annotated[EventSettings, BeforeValidator(_read_brokers), _OrUrls()] | None = None
    """Brokers whose events tell of changes at once (needs extauthz[wso2]). Left out: changes are
    found with the next reading."""
    start_timeout: PositiveDuration = 60_000_000
    """How long a start waits for the first reading, where there is no last good copy."""
    state_dir: Path | None = None
    """Folder for the last good copy, from which a replica starts while API Manager is away. Left
    out: the copy ends with the process."""
    announce: bool = True
    """Tell API Manager 4.6 and later of this gateway."""
    labels: tuple[Name, ...] = Field(default=("Default",), min_length=1)
    """The gateway environments that this one stands for."""
    accept_tokens_before_revocations: bool = False
    """Decide on tokens by the last good copy, although what was revoked since is not known yet."""

    @property
    def tenant_domains(self) -> tuple[str, ...]:
        """The tenants to read; ``ALL`` alone for all."""
        return (self.tenants,) if isinstance(self.tenants, str) else self.tenants


def _say_at_least_one(schema: dict[str, Any]) -> None:
    """What is written has an entry; what is left out has none."""
    del schema["default"]
    schema["minItems"] = 1


def _check_any(files: tuple[Path, ...]) -> tuple[Path, ...]:
    if not files:
        raise ValueError("must not be empty")
    return files


class CatalogSettings(StrictModel):
    """Where the catalog comes from: files, a WSO2 API Manager, or both."""

    files: Annotated[tuple[Path, ...], AfterValidator(_check_any)] = Field(
        default=(), json_schema_extra=_say_at_least_one
    )
    """Files and folders; all of them together are the catalog."""
    wso2: Wso2Settings | None = None
    """A WSO2 API Manager. Left out: none."""

    @model_validator(mode="after")
    def _check_source(self) -> CatalogSettings:
        if not self.files and self.wso2 is None:
            raise ValueError("names nothing; write files with files and folders, or wso2")
        return self
