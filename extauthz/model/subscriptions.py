"""Defines subscriptions, and keeps a million of them in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeVar, overload

from extauthz.model.limits import Tier
from extauthz.model.values import request_value

_T = TypeVar("_T")

_AT_ONCE: Final = 1_000
"""Entries of a table that are freed in one step."""


class SubscriptionState(Enum):
    """State of a subscription (WSO2 API Manager's states)."""

    UNBLOCKED = "UNBLOCKED"
    BLOCKED = "BLOCKED"
    PROD_ONLY_BLOCKED = "PROD_ONLY_BLOCKED"
    ON_HOLD = "ON_HOLD"
    REJECTED = "REJECTED"
    TIER_UPDATE_PENDING = "TIER_UPDATE_PENDING"


# A catalog keeps the terms of its subscriptions; a `Subscription` is made for a request.
@request_value(frozen=True, slots=True, kw_only=True)
class Subscription:
    """An application's subscription to an API; `tier` limits this application on this API."""

    application: str
    api: str
    version: str
    tier: Tier | None = None
    state: SubscriptionState = SubscriptionState.UNBLOCKED


class SubscriptionTerms(NamedTuple):
    """Tier and state of a subscription. Subscriptions on the same terms share one object."""

    tier: Tier | None
    state: SubscriptionState


class Subscriptions(Mapping[tuple[str, str, str], Subscription]):
    """Subscriptions by application, API and version.

    Each API has a dictionary from application to shared terms. So a subscription has no object
    and no key of its own, and no table is so large that growing or freeing it takes long.
    """

    __slots__ = ("_of_apis", "_shared")

    def __init__(self, subscriptions: Iterable[Subscription] = ()) -> None:
        self._of_apis: dict[str, dict[str, dict[str, SubscriptionTerms]]] = {}
        """By the API's name, its version and the application."""
        self._shared: dict[tuple[int, SubscriptionState], SubscriptionTerms] = {}
        """By the tier's identity: the terms keep it alive."""
        for it in subscriptions:
            self.add(it.application, it.api, it.version, self.share_terms(it.tier, it.state))

    def share_terms(self, tier: Tier | None, state: SubscriptionState) -> SubscriptionTerms:
        """The shared object for these terms."""
        terms = self._shared.get((id(tier), state))
        if terms is None:
            terms = self._shared[id(tier), state] = SubscriptionTerms(tier, state)
        return terms

    def add(self, application: str, api: str, version: str, terms: SubscriptionTerms) -> bool:
        """Adds one, or replaces it and returns False. Only for building a catalog."""
        of_api = self._of_apis.setdefault(api, {}).setdefault(version, {})
        before = len(of_api)
        of_api[application] = terms
        return len(of_api) > before

    def add_to_api(
        self, api: str, version: str, subscribers: Iterable[tuple[str, SubscriptionTerms]]
    ) -> None:
        """Adds many applications' to one API. Only called while the catalog is being built."""
        self._of_apis.setdefault(api, {}).setdefault(version, {}).update(subscribers)

    def list_by_api(self) -> Iterator[tuple[str, str, dict[str, SubscriptionTerms]]]:
        """Each API's name, version and subscribers; the dictionaries must not be changed."""
        for api, versions in self._of_apis.items():
            for version, of_api in versions.items():
                yield api, version, of_api

    def find_of_api(self, api: str, version: str) -> Mapping[str, SubscriptionTerms]:
        """The subscribers of an API, by application; empty when it has none."""
        return self._of_apis.get(api, {}).get(version, {})

    def take_apart(self) -> Iterator[None]:
        """Empties it, at most a thousand in a step. Only called when it is no longer used."""
        while self._of_apis:
            _, versions = self._of_apis.popitem()
            for of_api in versions.values():
                while len(of_api) > _AT_ONCE:
                    of_api.popitem()
                    yield
            yield

    @overload
    def get(self, key: tuple[str, str, str], /) -> Subscription | None: ...

    @overload
    def get(
        self, key: tuple[str, str, str], /, default: Subscription | _T
    ) -> Subscription | _T: ...

    def get(
        self, key: tuple[str, str, str], /, default: Subscription | _T | None = None
    ) -> Subscription | _T | None:
        """The subscription of an application to an API and version."""
        application, api, version = key
        versions = self._of_apis.get(api)
        if versions is not None:
            of_api = versions.get(version)
            if of_api is not None:
                terms = of_api.get(application)
                if terms is not None:
                    return Subscription(
                        application=application,
                        api=api,
                        version=version,
                        tier=terms[0],
                        state=terms[1],
                    )
        return default

    def __getitem__(self, key: tuple[str, str, str]) -> Subscription:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        for api, version, of_api in self.list_by_api():
            for application in of_api:
                yield application, api, version

    def __len__(self) -> int:
        return sum(len(of_api) for _, _, of_api in self.list_by_api())
