"""The settings of an installation: one frozen tree, its defaults and what each value may be.

`extauthz.settings.reading` reads it from a file and the environment. Durations are in microseconds.
`extauthz.settings.conflicts` finds contradictions between sections, once each section is valid.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, model_validator

from extauthz.answers.backend_jwt_style import SigningAlgorithm
from extauthz.answers.denial import Profile
from extauthz.answers.limit_headers import LimitHeaderStyle
from extauthz.answers.upstream import IdentityFact, default_identity_headers
from extauthz.documents.document import (
    Duration,
    Fits,
    PositiveDuration,
    StrictModel,
    printable,
    write_duration,
)
from extauthz.model.identity import Place
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.serving.listen import is_local, read_listen_address
from extauthz.settings.catalog import CatalogSettings
from extauthz.settings.listening import (
    AdminSettings,
    ListenSettings,
    MixerSettings,
    TlsSettings,
)
from extauthz.settings.log import LogSettings
from extauthz.settings.stores import CounterSettings, EmergencySettings
from extauthz.settings.telemetry import TelemetrySettings
from extauthz.settings.usage import UsageSettings
from extauthz.settings.values import (
    CookieName,
    DirectHost,
    HeaderName,
    OwnHeaderName,
    ParameterName,
    ProxyUrl,
)

_Model = TypeVar("_Model", bound=StrictModel)
Host: TypeAlias = Literal["grpcio", "envoy"]

MAX_WORKERS: Final = 256
_MIN_TOKEN_LIFE_US: Final = 10_000_000
_MAX_TOKEN_LIFE_US: Final = 86_400_000_000
_PLACES: Final = CredentialPlaces()
_REALM: Final = "must have 1 to 64 letters, digits, spaces and ._~:/-"


def _check_token_life(life_us: int) -> int:
    if not _MIN_TOKEN_LIFE_US <= life_us <= _MAX_TOKEN_LIFE_US:
        raise ValueError("must be from 10s to 1d")
    return life_us


class ServerSettings(StrictModel):
    """How calls are served."""

    host: Host = "grpcio"
    """What serves the calls: grpcio, in this process; envoy, more than twice as fast, in an
    Envoy that is started for it (needs extauthz[envoy])."""
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    """Processes that share the ports, one for each core: more than 1 needs TCP ports and counters
    in Redis."""
    tls: TlsSettings | None = None
    """Left out: plain text, for a socket or a mesh that encrypts."""
    max_in_flight: int = Field(default=1000, ge=1, le=1_000_000)
    """Calls that are decided at once, in each worker; further calls are refused as
    unavailable."""
    max_streams: int = Field(default=1000, ge=1, le=1_000_000)
    """Long streams that are open at once, in each worker; further ones are refused as
    unavailable."""
    max_connection_age: PositiveDuration = 1_800_000_000
    """After this, a caller is asked to connect again, so that new replicas get their share."""
    drain_delay: Duration = 0
    """How long new calls are still answered after SIGTERM, while health says NOT_SERVING."""
    grace: Duration = 10_000_000
    """How long calls in flight may take to finish once the listeners have closed."""
    shadow: Literal["grpc", "mixer", "http"] | None = None
    """This door only logs what it would have decided (`log.decisions`): it lets every request
    pass, changes nothing and counts nothing. For a change of doors."""


class PlaceSettings(StrictModel):
    """Where a credential may stand: exactly one of the keys."""

    header: HeaderName | None = None
    """Name of a request header."""
    query: ParameterName | None = None
    """Name of a query parameter."""
    cookie: CookieName | None = None
    """Name of a cookie."""

    @model_validator(mode="after")
    def _check_one(self) -> PlaceSettings:
        if [self.header, self.query, self.cookie].count(None) != 2:
            raise ValueError("must have exactly one of header, query and cookie")
        return self

    @classmethod
    def of(cls, place: Place) -> PlaceSettings:
        """A place, as it is written in the settings."""
        return cls.model_validate({place.kind.value: place.name})


class FailedAttemptsSettings(StrictModel):
    """How many invalid credentials one client address may send."""

    requests: int = Field(default=300, ge=0)
    """Invalid credentials in each period; 0 turns the limit off."""
    per: PositiveDuration = 60_000_000
    """The period."""


class CredentialSettings(StrictModel):
    """How credentials are found and kept."""

    bearer: tuple[PlaceSettings, ...] = Field(
        default=tuple(map(PlaceSettings.of, _PLACES.bearer)), min_length=1
    )
    """Where bearer tokens may stand."""
    api_key: tuple[PlaceSettings, ...] = Field(
        default=tuple(map(PlaceSettings.of, _PLACES.api_key)), min_length=1
    )
    """Where API keys may stand."""
    api_key_pepper_file: Path | None = None
    """File with the secret that API keys stored as hmac_sha256 were hashed with."""
    trust_xfcc: bool = False
    """Read x-forwarded-client-cert. Only where the proxy in front sets that header itself."""
    trusted_hops: int = Field(default=0, ge=0, le=32)
    """Our own proxies in front of the Envoy that asks: how far to go left in X-Forwarded-For."""
    use_remote_address: bool | None = None
    """Whether that Envoy adds its peer to X-Forwarded-For, as its own use_remote_address says. Left
    out: found from the last entry, which does not work for a peer on loopback."""
    failed_attempts: FailedAttemptsSettings = FailedAttemptsSettings()
    """How many invalid credentials one client address may send: guessing costs the guesser."""
    cache_size: int = Field(default=50_000, ge=0)
    """Verified tokens that are remembered."""


class HttpSettings(StrictModel):
    """How issuers of tokens are asked, for keys and introspection."""

    proxy: ProxyUrl | None = None
    """URL of an HTTP proxy, like http://proxy.example:3128. One named in the environment is not
    used."""
    no_proxy: tuple[DirectHost, ...] = ("localhost", "127.0.0.1", "::1")
    """Hosts that are asked directly, with all hosts below them."""


class UnnormalisedPath(Enum):
    """What to do with a path that is not in normal form. The value is the word in the settings."""

    REFUSE = "refuse"
    REWRITE = "rewrite"


class PathSettings(StrictModel):
    """What is done with paths."""

    unnormalised: UnnormalisedPath = UnnormalisedPath.REFUSE
    """A path that is not in normal form is refused. rewrite is no longer done and means refuse,
    with a warning; this key will go."""


class BackendJwtSettings(StrictModel):
    """A signed token that tells the upstream who calls, with WSO2's claims."""

    private_key_file: Path
    """PEM file: the key that signs, without a password."""
    header: OwnHeaderName = "x-jwt-assertion"
    """The header that it is sent in; a client's own copy never passes."""
    algorithm: SigningAlgorithm = SigningAlgorithm.RS256
    """JWS algorithm; the key must fit it."""
    key_id: Annotated[str, printable(0, 256)] = ""
    """The kid in the token's header; left out when empty."""
    issuer: Annotated[str, printable(1, 256)] = "wso2.org/products/am"
    """The claim iss."""
    dialect: Annotated[str, printable(0, 256)] = "http://wso2.org/claims"
    """Prefix of each claim's name, with a slash between them; may be empty."""
    ttl: Annotated[Duration, AfterValidator(_check_token_life)] = 900_000_000
    """How long a token is valid. One is used again until 80 % of this have passed."""


class ResponseSettings(StrictModel):
    """What clients and upstreams see."""

    profile: Profile = Profile.STANDARD
    """standard: RFC 9457 bodies; wso2: codes, statuses and bodies of WSO2 API Manager."""
    identity_headers: dict[IdentityFact, OwnHeaderName] = Field(
        default_factory=default_identity_headers
    )
    """Facts that the upstream gets, and their headers. Replaces the default as a whole."""
    backend_jwt: BackendJwtSettings | None = None
    """A signed token that tells the upstream who calls. Left out: none is sent."""
    realm: Annotated[str, Fits(r"^[A-Za-z0-9 ._~:/-]{1,64}$", _REALM)] = "extauthz"
    """Names this installation in WWW-Authenticate."""
    rate_limit_headers: LimitHeaderStyle = LimitHeaderStyle.IETF
    """ietf: RateLimit and RateLimit-Policy; x: X-RateLimit-*; both; none."""
    error_response: bool = False
    """Say "could not decide" in Envoy's error_response (1.37 and later), not as a failed call."""

    @property
    def own_headers(self) -> tuple[str, ...]:
        """Every request field that only the service sets."""
        names = tuple(self.identity_headers.values())
        return names if self.backend_jwt is None else (*names, self.backend_jwt.header)


class Settings(StrictModel):
    """All of it."""

    listen: ListenSettings = ListenSettings()
    """Where the service listens."""
    admin: AdminSettings = AdminSettings()
    """The API of the admin listener: whether it is there, and who may use it."""
    mixer: MixerSettings = MixerSettings()
    """The adapter for Istio's Mixer. A handler's params go before the defaults in here."""
    server: ServerSettings = ServerSettings()
    """How calls are served."""
    catalog: CatalogSettings
    """Where the catalog comes from."""
    counters: CounterSettings = CounterSettings()
    """Where requests are counted."""
    emergency: EmergencySettings = EmergencySettings()
    """Blocks and revocations, which are in force whatever is wrong in the catalog."""
    credentials: CredentialSettings = CredentialSettings()
    """How credentials are found and kept."""
    http: HttpSettings = HttpSettings()
    """How issuers of tokens are asked, for keys and introspection."""
    paths: PathSettings = PathSettings()
    """What is done with paths."""
    responses: ResponseSettings = ResponseSettings()
    """What clients and upstreams see."""
    log: LogSettings = LogSettings()
    """What is logged, and which decisions."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """What is sent to a collector of OpenTelemetry's (needs extauthz[otlp])."""
    usage: UsageSettings | None = None
    """What becomes of the reports of finished requests: Envoy's access logs and Mixer's reports.
    Left out: Envoy's are refused, and Mixer's only charge limits."""

    @property
    def is_admin_api_open(self) -> bool:
        """Whether the admin listener serves the API."""
        if self.admin.api is not None:
            return self.admin.api
        address = self.listen.admin
        if address is None:
            return False
        return is_local(read_listen_address(address)) or self.admin.says_who_may

    def with_host(self, host: Host) -> Settings:
        """The same settings, served by this host."""
        return _change(self, server=_change(self.server, host=host))

    def with_catalog_files(self, files: tuple[Path, ...]) -> Settings:
        """The same settings, with these files beside what else the catalog is read from."""
        return _change(self, catalog=_change(self.catalog, files=files))

    def with_workers(self, workers: int) -> Settings:
        """The same settings, served by so many workers."""
        return _change(self, server=_change(self.server, workers=workers))

    def with_trusted_hops(self, hops: int) -> Settings:
        """The same settings, with so many proxies of our own in front."""
        return _change(self, credentials=_change(self.credentials, trusted_hops=hops))

    def for_worker(self, http: str | None = None) -> Settings:
        """What one of the workers goes by: it counts as one of all, and is watched elsewhere.

        Args:
            http: the address of `listen.http`, with the actual port.
        """
        counters = _change(self.counters, replicas=self.counters.replicas * self.server.workers)
        listen = _change(self.listen, admin=None, http=http)
        # The process that owns the admin listener asks the workers for what the API shows.
        admin = _change(self.admin, api=self.is_admin_api_open)
        return _change(self.with_workers(1), listen=listen, admin=admin, counters=counters)


def _change(model: _Model, **values: Any) -> _Model:
    return model.model_copy(update=values)


def settings_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the settings file, for editors."""
    schema = Settings.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for part in section.get("properties", {}).values():
            _say_default(part)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _say_default(part: dict[str, Any]) -> None:
    """Writes a default as it would stand in the file. A section's stands with its keys."""
    match part.get("default"):
        case int() as duration_us if part.get("type") == "string":
            part["default"] = write_duration(duration_us)
        case [*items]:
            part["default"] = [
                {key: value for key, value in item.items() if value is not None}
                if isinstance(item, dict)
                else item
                for item in items
            ]
        case dict() | None:
            part.pop("default", None)
        case _:
            pass
