"""What there is to find in a catalog: its entries as they are shown, and the tables to look through.

What is masked is found by what is shown of it, or whole, and never by a part: the answers to many
searches would say it otherwise. So an API key is found by the first digits of its hash, as the
catalog has it, a consumer key by itself or by its hash in the log of decisions, and an owner or a
certificate's principal by itself or as `Masks.user` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple, get_args

from extauthz.documents.document import write_duration
from extauthz.emergency.entries import write_time
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration
from extauthz.model.limits import US_PER_S, Limit, Tier
from extauthz.model.subscriptions import SubscriptionTerms
from extauthz.telemetry.decision_log.masking import (
    HASH_DIGITS,
    ConsumerKey,
    Digest,
    Masks,
    Name,
    User,
    UserMask,
    list_fields,
    write_fields,
)

_FEWEST_DIGITS: Final = 6
"""Of a hash that is searched for."""
_KEY_DIGITS: Final = 12
"""Of an API key's hash that are shown."""


class FoundApi(NamedTuple):
    """An API."""

    kind: Name
    name: Name
    version: Name
    context: tuple[Name, ...]
    hosts: tuple[Name, ...]
    state: Name
    tier: Name
    security: tuple[Name, ...]
    resources: int
    subscriptions: int


class FoundSubscription(NamedTuple):
    """A subscription."""

    kind: Name
    application: Name
    api: Name
    version: Name
    state: Name
    tier: Name


class FoundApplication(NamedTuple):
    """An application, with the first of its subscriptions, and their number."""

    kind: Name
    name: Name
    owner: User
    tier: Name
    subscription_count: int
    subscriptions: tuple[FoundSubscription, ...]


class FoundApiKey(NamedTuple):
    """An API key, by the first digits of its hash. `expires` is empty when it never does."""

    kind: Name
    id: Digest
    application: Name
    key_type: Name
    scopes: tuple[Name, ...]
    expires: Name


class FoundConsumerKey(NamedTuple):
    """A consumer key. `issuer` is empty for any."""

    kind: Name
    id: ConsumerKey
    issuer: Name
    application: Name
    key_type: Name


class FoundCertificate(NamedTuple):
    """A client certificate."""

    kind: Name
    principal: User
    application: Name
    key_type: Name


class FoundTier(NamedTuple):
    """A tier, with its limits in words."""

    kind: Name
    name: Name
    limits: tuple[Name, ...]
    burst: Name
    stop_on_quota_reach: bool
    condition_groups: int


Found = (
    FoundApi
    | FoundApplication
    | FoundApiKey
    | FoundConsumerKey
    | FoundCertificate
    | FoundSubscription
    | FoundTier
)
_FIELDS: Final = {it: list_fields(it) for it in get_args(Found)}


def write_found(found: Found, masks: Masks) -> dict[str, Any]:
    """An entry as values that JSON can hold, masked."""
    written: dict[str, Any] = write_fields(found, _FIELDS[type(found)], masks)
    return written


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched for.

    Attributes:
        text: a part of a name, a base path or a host, in any case; or a key or user as in the
            module's text. Empty for everything.
        kind: one of `LOOKS`; empty for all.
        application, api: exact names, of credentials and subscriptions.
        most: how many are found at most.
        after: the cursor of the page before.
    """

    text: str = ""
    kind: str = ""
    application: str = ""
    api: str = ""
    most: int = 20
    after: str = ""


class Asked:
    """A search, prepared for comparing."""

    def __init__(self, wanted: Search, masks: Masks) -> None:
        self.text = wanted.text.casefold()
        self.exact = wanted.text
        self.application = wanted.application
        self.api = wanted.api
        self.masks = masks
        digits = self.text.removeprefix("sha256:").strip()
        is_hash = len(digits) >= _FEWEST_DIGITS and set(digits) <= set("0123456789abcdef")
        self.digits = digits if is_hash else ""

    def fits(self, *names: str) -> bool:
        """Whether the text is in any of the names."""
        text = self.text
        return not text or any(text in name.casefold() for name in names)

    def means(self, user: str) -> bool:
        """Whether the text is a user, or its hash, or a part of a user that is shown in full."""
        if not self.text or user == self.exact:
            return True
        match self.masks.user:
            case UserMask.FULL:
                return self.text in user.casefold()
            case UserMask.HASH:
                return self._begins(self.masks.hash_text(user), HASH_DIGITS)
            case UserMask.OFF:
                return False

    def means_hash(self, of_key: str) -> bool:
        """Whether the text is the beginning of a key's hash in the log of decisions."""
        return self._begins(self.masks.hash_text(of_key), HASH_DIGITS)

    def means_digest(self, digest: bytes) -> bool:
        """Whether the text is an API key's hash, or the beginning of what is shown of it."""
        if self.digits and len(self.digits) == 2 * len(digest):
            return digest.hex() == self.digits
        return self._begins(digest.hex(), _KEY_DIGITS)

    def _begins(self, digits: str, shown: int) -> bool:
        return 0 < len(self.digits) <= shown and digits.startswith(self.digits)

    def is_of(self, application: Application | None) -> bool:
        """Whether an application is wanted, and its credentials."""
        name = "" if application is None else application.name
        return self.application in ("", name)


@dataclass(frozen=True, slots=True)
class Table:
    """Something to look through: `find` gives None for a row that does not fit."""

    rows: Collection[Any]
    find: Callable[[Any], Found | None]


def _look_at_apis(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    def find(api: Api) -> FoundApi | None:
        if asked.api not in ("", api.name):
            return None
        if not asked.fits(api.name, api.version, *api.base_paths, *api.hosts):
            return None
        return FoundApi(
            kind=Name("api"),
            name=Name(api.name),
            version=Name(api.version),
            context=tuple(map(Name, api.base_paths)),
            hosts=tuple(map(Name, api.hosts)),
            state=Name(api.state.value),
            tier=_name(api.tier),
            security=tuple(Name(scheme.value) for scheme in api.schemes),
            resources=len(api.resources),
            subscriptions=len(catalog.subscriptions.find_of_api(api.name, api.version)),
        )

    yield Table(catalog.apis.values(), find)


def _look_at_applications(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    def find(application: Application) -> FoundApplication | None:
        if not asked.is_of(application):
            return None
        if not asked.fits(application.name) and not asked.means(application.owner):
            return None
        return FoundApplication(
            kind=Name("application"),
            name=Name(application.name),
            owner=User(application.owner),
            tier=_name(application.tier),
            subscription_count=0,
            subscriptions=(),
        )

    yield Table(catalog.applications.values(), find)


def _look_at_api_keys(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    def find(key: ApiKey) -> FoundApiKey | None:
        if not asked.is_of(key.application):
            return None
        if asked.text and not asked.means_digest(key.digest):
            return None
        return FoundApiKey(
            kind=Name("api_key"),
            id=Digest(key.digest.hex()[:_KEY_DIGITS]),
            application=Name("" if key.application is None else key.application.name),
            key_type=Name(key.key_type.value),
            scopes=tuple(map(Name, sorted(key.scopes or ()))),
            expires=Name("" if key.expires_at_us is None else write_us(key.expires_at_us)),
        )

    yield Table(catalog.api_keys.values(), find)


def _look_at_consumer_keys(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    def find(
        item: tuple[tuple[str, str], ClientRegistration],
    ) -> FoundConsumerKey | None:
        (issuer, key), registered = item
        if not asked.is_of(registered.application):
            return None
        if asked.text and key != asked.exact and not asked.means_hash(key):
            return None
        return FoundConsumerKey(
            kind=Name("consumer_key"),
            id=ConsumerKey(key),
            issuer=Name(issuer),
            application=Name(registered.application.name),
            key_type=Name(registered.key_type.value),
        )

    yield Table(catalog.consumer_keys.items(), find)


def _look_at_certificates(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    def find(item: tuple[str, ClientRegistration]) -> FoundCertificate | None:
        principal, registered = item
        if not asked.is_of(registered.application) or not asked.means(principal):
            return None
        return FoundCertificate(
            kind=Name("certificate"),
            principal=User(principal),
            application=Name(registered.application.name),
            key_type=Name(registered.key_type.value),
        )

    yield Table(catalog.certificates.items(), find)


def _look_at_tiers(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    def find(tier: Tier) -> FoundTier | None:
        if not asked.fits(tier.name):
            return None
        return FoundTier(
            kind=Name("tier"),
            name=Name(tier.name),
            limits=tuple(map(_say_limit, tier.limits)),
            burst=Name("") if tier.burst is None else _say_limit(tier.burst),
            stop_on_quota_reach=tier.stop_on_quota_reach,
            condition_groups=len(tier.conditions),
        )

    yield Table(catalog.tiers.values(), find)


def _look_at_subscriptions(catalog: Catalog, asked: Asked) -> Iterator[Table]:
    """A table for each API."""
    for api, version, of_api in catalog.subscriptions.list_by_api():
        if asked.api not in ("", api):
            continue
        rows: Collection[tuple[str, SubscriptionTerms]] = of_api.items()
        if asked.application:
            terms = of_api.get(asked.application)
            rows = () if terms is None else ((asked.application, terms),)
        yield Table(rows, partial(_find_subscription, api, version, asked, asked.fits(api)))


def _find_subscription(
    api: str,
    version: str,
    asked: Asked,
    fits_all: bool,  # noqa: FBT001  (`partial` of it takes places alone)
    item: tuple[str, SubscriptionTerms],
) -> FoundSubscription | None:
    application, terms = item
    if not fits_all and not asked.fits(application):
        return None
    return write_subscription(application, api, version, terms)


LOOKS: Final[Mapping[str, Callable[[Catalog, Asked], Iterator[Table]]]] = {
    "api": _look_at_apis,
    "application": _look_at_applications,
    "api_key": _look_at_api_keys,
    "consumer_key": _look_at_consumer_keys,
    "certificate": _look_at_certificates,
    "tier": _look_at_tiers,
    "subscription": _look_at_subscriptions,
}
"""What is looked through for each kind, in this order."""


def write_subscription(
    application: str, api: str, version: str, terms: SubscriptionTerms
) -> FoundSubscription:
    """A subscription as it is shown."""
    return FoundSubscription(
        kind=Name("subscription"),
        application=Name(application),
        api=Name(api),
        version=Name(version),
        state=Name(terms.state.value),
        tier=_name(terms.tier),
    )


def write_us(unix_us: int) -> str:
    """A time as RFC 3339 writes it, in UTC."""
    return write_time(datetime.fromtimestamp(unix_us / US_PER_S, UTC))


def _name(tier: Tier | None) -> Name:
    return Name("" if tier is None else tier.name)


def _say_limit(limit: Limit) -> Name:
    window = limit.unit.value if limit.unit else write_duration(limit.window_us)
    text = f"{limit.requests} {limit.quota_unit.value} per {window}, {limit.algorithm.value}"
    return Name(f"{text}, not enforced" if limit.shadow else text)
