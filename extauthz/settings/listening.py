"""The settings of the doors: where they are opened, what they show, and who may come in."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from extauthz.documents.document import Duration, PositiveDuration, StrictModel, printable
from extauthz.settings.values import Address, HeaderName, OwnHost, ParameterName
from mixer_compat.property_names import PropertyNames

_PARTS: Final = tuple(part.name for part in fields(PropertyNames))


def _check_parts(names: dict[str, str]) -> dict[str, str]:
    unknown = sorted(set(names) - set(_PARTS))
    if unknown:
        raise ValueError(f"{unknown[0]} is no part of a request; there are {', '.join(_PARTS)}")
    return names


class ListenSettings(StrictModel):
    """Where the service listens."""

    grpc: Address = "127.0.0.1:9001"
    """ext_authz v3 and health: host:port, [ipv6]:port or unix:/path."""
    mixer: Address | None = None
    """The adapter for Istio's Mixer, in the same form; left out: closed."""
    http: Address | None = None
    """Checks over HTTP, for proxies other than Envoy and for Istio's envoyExtAuthzHttp, in the same
    form; left out: closed."""
    admin: Address | None = None
    """/healthz, /readyz, /metrics and the admin API over HTTP; left out: closed."""


class TlsSettings(StrictModel):
    """Certificates of the listeners; read again when the files change."""

    cert: Path
    """PEM file: the certificate and its chain."""
    key: Path
    """PEM file: the private key, without a password."""
    client_ca: Path | None = None
    """PEM file: callers must show a certificate signed by one of these."""


class AdminTlsSettings(TlsSettings):
    """Certificates of the admin listener; read again when the files change."""

    client_ca: Path | None = None
    """PEM file: a certificate signed by one of these lets its owner use the API. Probes need
    none."""


class AdminSettings(StrictModel):
    """The API of the admin listener: whether it is there, and who may use it."""

    api: bool | None = None
    """Whether /api is served. Left out: where listen.admin is loopback or a Unix socket, and
    elsewhere where token_file or tls.client_ca says who may use it."""
    token_file: Path | None = None
    """File with the bearer tokens of the API, one a line; read again when it changes. Needed
    where other machines can connect, unless tls.client_ca is there."""
    tls: AdminTlsSettings | None = None
    """Left out: plain HTTP."""
    client_sans: tuple[Annotated[str, printable(1, 2048)], ...] = ()
    """URI or DNS SANs of client certificates that may use the API; empty: all that client_ca
    signed."""
    allowed_hosts: tuple[OwnHost, ...] = ()
    """Further names and addresses under which the API may be called, without a port."""

    @property
    def says_who_may(self) -> bool:
        """Whether a token or a client certificate is demanded."""
        return self.token_file is not None or (
            self.tls is not None and self.tls.client_ca is not None
        )


class MixerCallerSettings(StrictModel):
    """What a Mixer must present, as connection.authentication of its handler says."""

    token_file: Path | None = None
    """File with the tokens that are taken, one a line; left out: none is asked for."""
    token_header: HeaderName = "authorization"
    """Header with the token: authorization (PLAIN or BEARER), or the handler's customHeader."""
    uri_sans: tuple[Annotated[str, printable(1, 2048)], ...] = ()
    """URI SANs of client certificates that are taken; empty: all that client_ca signed."""


class MixerSettings(StrictModel):
    """The adapter for Istio's Mixer. A handler's params go before the defaults in here."""

    tls: TlsSettings | None = None
    """Left out: plain text, as a handler without connection.authentication dials."""
    callers: MixerCallerSettings = MixerCallerSettings()
    """What a Mixer must present."""
    compat: Literal["wso2-adapter"] | None = None
    """For handlers without params: names, codes and messages of WSO2's Mixer adapter."""
    limits_in_quota: bool = False
    """For handlers without params: a check leaves the limits to the handler's quota instances."""
    properties: Annotated[dict[str, str], AfterValidator(_check_parts)] = Field(
        default_factory=dict
    )
    """For handlers without params: part of a request to the property that carries it."""
    headers: dict[str, HeaderName] = Field(default_factory=dict)
    """For handlers without params: from a property to the header field that it holds."""
    query: dict[str, ParameterName] = Field(default_factory=dict)
    """For handlers without params: from a property to the query parameter that it holds."""
    quota_tiers: dict[str, str] = Field(default_factory=dict)
    """For handlers without params: short name of a quota instance to the tier that it counts."""
    valid_for: Duration = 1_000_000
    """The longest that proxies may reuse an allowed check; where a limit holds they never do."""
    valid_uses: int = Field(default=1000, ge=1, le=2**31 - 1)
    """How often proxies may reuse an allowed check."""
    quota_valid_for: PositiveDuration = 1_000_000
    """The longest that proxies may keep a granted amount before they spend it."""
