"""The settings of an installation: one file, with single values overridden by the environment.

``EXTAUTHZ_LISTEN__GRPC`` overrides ``listen.grpc``: section and key are joined by two
underscores. Other variables that begin with ``EXTAUTHZ_`` are left alone, because Kubernetes
sets some for a service of that name. Everything is checked at once, and every problem is
reported; nothing else in this package reads the environment. File names are relative to the
settings file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from extauthz.answers.denial import Profile
from extauthz.answers.limit_headers import LimitHeaderStyle
from extauthz.answers.upstream import IdentityFact, default_identity_headers
from extauthz.document import (
    Duration,
    SourceText,
    StrictModel,
    check_model,
    decode_source,
    read_file,
    read_mapping,
)
from extauthz.errors import ConfigError, Problem
from extauthz.policy.match import UnnormalisedPath

DEFAULT_FILE: Final = "extauthz.yaml"
_PREFIX: Final = "EXTAUTHZ_"


def _check_address(address: str) -> str:
    if address.startswith("unix:/"):
        return address
    host, colon, port = address.rpartition(":")
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not host or bare_ipv6 or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, [ipv6]:port or unix:/path")
    return address


def _check_header_name(name: str) -> str:
    name = name.lower()
    if not name or not all(mark.isalnum() or mark in "!#$%&'*+-.^_`|~" for mark in name):
        raise ValueError("must be a header name: letters, digits and hyphens")
    if not name.isascii():
        raise ValueError("must be a header name: ASCII only")
    return name


Address = Annotated[str, AfterValidator(_check_address)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]


class ListenSettings(StrictModel):
    """Where the service listens."""

    grpc: Address = "127.0.0.1:9001"
    """ext_authz v3 and health: host:port or unix:/path."""


class TlsSettings(StrictModel):
    """Certificates of the listeners; read again when the files change."""

    cert: Path
    """PEM file: the certificate and its chain."""
    key: Path
    """PEM file: the private key."""
    client_ca: Path | None = None
    """PEM file: clients must show a certificate signed by one of these."""


class ServerSettings(StrictModel):
    """How calls are served."""

    host: Literal["grpcio"] = "grpcio"
    """Which server library serves the calls."""
    tls: TlsSettings | None = None
    """Left out: plain text, for a socket or a mesh that encrypts."""
    max_in_flight: int = Field(default=1000, ge=1, le=1_000_000)
    """Calls that are decided at once; what comes on top is refused as unavailable."""
    grace: Duration = 10_000_000
    """How long calls in flight may take to finish when the service stops."""


class CatalogSettings(StrictModel):
    """Where the catalog comes from."""

    files: tuple[Path, ...] = Field(min_length=1)
    """Files and folders; all of them together are the catalog."""


class CounterSettings(StrictModel):
    """Where requests are counted."""

    store: Literal["memory"] = "memory"
    """memory: in this process, for a single replica."""
    max_keys: int = Field(default=1_000_000, ge=1)
    """Counters that are kept at once."""


class PlaceSettings(StrictModel):
    """Where a credential may stand: exactly one of the keys."""

    header: HeaderName | None = None
    """Name of a request header."""
    query: str | None = Field(default=None, min_length=1)
    """Name of a query parameter."""
    cookie: str | None = Field(default=None, min_length=1)
    """Name of a cookie."""

    @model_validator(mode="after")
    def _check_one(self) -> PlaceSettings:
        if [self.header, self.query, self.cookie].count(None) != 2:
            raise ValueError("must have exactly one of header, query and cookie")
        return self


class FailedAttemptsSettings(StrictModel):
    """How many invalid credentials one client address may send."""

    requests: int = Field(default=300, ge=0)
    """0 turns the limit off."""
    per: Duration = 60_000_000


class CredentialSettings(StrictModel):
    """How credentials are found and kept."""

    bearer: tuple[PlaceSettings, ...] = Field(
        default=(PlaceSettings(header="authorization"),), min_length=1
    )
    """Where bearer tokens may stand."""
    api_key: tuple[PlaceSettings, ...] = Field(
        default=(
            PlaceSettings(header="x-api-key"),
            PlaceSettings(header="apikey"),
            PlaceSettings(query="apikey"),
        ),
        min_length=1,
    )
    """Where API keys may stand."""
    api_key_pepper_file: Path | None = None
    """File with the secret that API keys stored as hmac_sha256 were hashed with."""
    trust_xfcc: bool = False
    """Read x-forwarded-client-cert. Only where the proxy in front sets that header itself."""
    trusted_hops: int = Field(default=0, ge=0, le=32)
    """Our own proxies in front of the Envoy that asks: how far to go left in X-Forwarded-For."""
    failed_attempts: FailedAttemptsSettings = FailedAttemptsSettings()
    """Makes guessing cost the guesser."""
    cache_size: int = Field(default=50_000, ge=0)
    """Verified tokens that are remembered."""


class PathSettings(StrictModel):
    """What is done with paths."""

    unnormalised: UnnormalisedPath = UnnormalisedPath.REFUSE
    """refuse: a path that is not in normal form is malformed; rewrite: the upstream gets the
    normal form."""


class ResponseSettings(StrictModel):
    """What clients and upstreams see."""

    profile: Profile = Profile.STANDARD
    """standard: RFC 9457 bodies; wso2: codes, statuses and bodies of WSO2 API Manager."""
    identity_headers: dict[IdentityFact, HeaderName] = Field(
        default_factory=default_identity_headers
    )
    """What the upstream is told, and in which headers. Replaces the default as a whole."""
    realm: str = Field(default="extauthz", pattern=r"^[A-Za-z0-9 ._~:/-]{1,64}$")
    """Names this installation in WWW-Authenticate."""
    rate_limit_headers: LimitHeaderStyle = LimitHeaderStyle.IETF
    """ietf: RateLimit and RateLimit-Policy; x: X-RateLimit-*; both; none."""
    error_response: bool = False
    """Say "could not decide" in Envoy's error_response (1.37 and later), not as a failed call."""


class LogSettings(StrictModel):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(StrictModel):
    """All of it."""

    listen: ListenSettings = ListenSettings()
    server: ServerSettings = ServerSettings()
    catalog: CatalogSettings
    counters: CounterSettings = CounterSettings()
    credentials: CredentialSettings = CredentialSettings()
    paths: PathSettings = PathSettings()
    responses: ResponseSettings = ResponseSettings()
    log: LogSettings = LogSettings()


def settings_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the settings file, for editors."""
    schema = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_settings(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file, with the environment's overrides; file names made absolute.

    Raises:
        ConfigError: with every problem that was found.
    """
    source = decode_source(str(path), read_file(path))
    tree = read_mapping(source)
    overrides = _read_overrides(os.environ if environment is None else environment)
    for (section, *keys), (variable, value) in overrides.items():
        _put(tree, (section, *keys), variable, value)
    settings = _check(tree, source, overrides)
    return _resolve_files(settings, path.absolute().parent)


def _read_overrides(environment: Mapping[str, str]) -> dict[tuple[str, ...], tuple[str, Any]]:
    """Path in the settings to (name of the variable, value)."""
    overrides = {}
    for variable, text in sorted(environment.items()):
        if variable.startswith(_PREFIX) and "__" in variable:
            path = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
            overrides[path] = (variable, _read_value(variable, text))
    return overrides


def _read_value(variable: str, text: str) -> Any:
    if not text.startswith(("[", "{")):
        return {"true": True, "false": False}.get(text, text)
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (knows strings only)
    except yaml.YAMLError as exc:
        problem = Problem(file=variable, message="is not a list or mapping in YAML's flow style")
        raise ConfigError([problem]) from exc


def _put(tree: dict[str, Any], path: tuple[str, ...], variable: str, value: Any) -> None:
    node = tree
    for key in path[:-1]:
        below = node.get(key)
        if below is None:
            below = node[key] = {}
        if not isinstance(below, dict):
            raise ConfigError([Problem(file=variable, message=f"{key} has no keys below it")])
        node = below
    node[path[-1]] = value


def _check(
    tree: dict[str, Any], source: SourceText, overrides: Mapping[tuple[str, ...], tuple[str, Any]]
) -> Settings:
    try:
        return check_model(Settings, tree, source)
    except ConfigError as exc:
        variables = {".".join(path): variable for path, (variable, _) in overrides.items()}
        raise ConfigError(
            replace(problem, file=variables[problem.path], line=0)
            if problem.path in variables
            else problem
            for problem in exc.problems
        ) from exc


def _resolve_files(settings: Settings, folder: Path) -> Settings:
    catalog = settings.catalog.model_copy(
        update={"files": tuple(folder / file for file in settings.catalog.files)}
    )
    server, credentials = settings.server, settings.credentials
    if server.tls is not None:
        tls = server.tls
        found = {"cert": folder / tls.cert, "key": folder / tls.key}
        if tls.client_ca is not None:
            found["client_ca"] = folder / tls.client_ca
        server = server.model_copy(update={"tls": tls.model_copy(update=found)})
    if credentials.api_key_pepper_file is not None:
        credentials = credentials.model_copy(
            update={"api_key_pepper_file": folder / credentials.api_key_pepper_file}
        )
    return settings.model_copy(
        update={"catalog": catalog, "server": server, "credentials": credentials}
    )
