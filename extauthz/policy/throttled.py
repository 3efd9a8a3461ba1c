"""Keeps what a Traffic Manager of WSO2 API Manager has throttled, and refuses requests for it.

A Traffic Manager counts the requests of all gateways, and tells which of its keys are over their
limit and until when. Whoever listens to it calls `ThrottledKeys.put` and `drop` with the keys as
they are told; a request is refused when one of its own keys is among them:

- ``CONTEXT:VERSION``, of an API whose tier limits all of it, or
  ``CONTEXT/VERSION`` + ``TEMPLATE:METHOD``, of a resource; then ``_USER`` for a tier that counts
  users apart, then ``_GROUP`` for each condition group that the request fits, or ``_default``
- ``APPLICATION:CONTEXT:VERSION``, of a subscription; newer gateways add ``:TIER``, which is left out
  here, as an application has one subscription to an API
- ``APPLICATION:USER``, of an application and one of its users

The context has the version in it, as the base path has; applications are named by their number, and
users with their tenant. Source: WSO2 carbon-apimgt, ThrottleHandler and ThrottleDataHolder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Final

from extauthz.model.decision import Denial, Reason
from extauthz.model.limits import LimitLevel
from extauthz.policy.limits.conditions import find_fitting_groups
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.ports import Clock

_LOG: Final = logging.getLogger(__name__)

MAX_KEYS: Final = 200_000
SUPER_TENANT: Final = "carbon.super"
RULE: Final = "Traffic Manager"
"""What logs and metrics name as the rule that refused."""
_OF_SUBSCRIPTION: Final = re.compile(r"([0-9]+:/[^:]*:[^:]+):[^:]+")


class ThrottledKeys:
    """Keys that are throttled until a time. A look-up is a few dictionary accesses.

    Args:
        max_keys: more are not kept, with a warning: the limits of the catalog hold all the same.
    """

    def __init__(self, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._until_us: dict[str, int] = {}
        self._is_over = False

    def __len__(self) -> int:
        return len(self._until_us)

    def put(self, key: str, until_us: int) -> None:
        """Throttles a key, as the Traffic Manager names it, until a time."""
        known = _leave_out_tier(key)
        if known not in self._until_us and len(self._until_us) >= self._max_keys:
            self._drop_expired()
            if len(self._until_us) >= self._max_keys:
                if not self._is_over:
                    _LOG.warning("more than %d throttled keys; the newest is left", self._max_keys)
                self._is_over = True
                return
        self._is_over = False
        self._until_us[known] = until_us

    def drop(self, key: str) -> None:
        """Lets a key pass again."""
        self._until_us.pop(_leave_out_tier(key), None)

    def clear(self) -> None:
        """Lets every key pass again, as when it is no longer known what is throttled."""
        self._until_us.clear()

    def find(self, limited: LimitedRequest) -> Denial | None:
        """The denial of a request whose key is throttled, with the time until it is not."""
        if not self._until_us:
            return None
        now_us = self._clock.now_us()
        for level, key in _list_keys(limited):
            until_us = self._until_us.get(key, 0)
            if until_us > now_us:
                return Denial(
                    reason=Reason.RATE_LIMITED,
                    detail="A rate limit is reached.",
                    level=level,
                    retry_after_us=until_us - now_us,
                    rule=RULE,
                )
        return None

    def _drop_expired(self) -> None:
        now_us = self._clock.now_us()
        self._until_us = {
            key: until_us for key, until_us in self._until_us.items() if until_us > now_us
        }


def _leave_out_tier(key: str) -> str:
    found = _OF_SUBSCRIPTION.fullmatch(key)
    return key if found is None else found[1]


def _list_keys(limited: LimitedRequest) -> Iterator[tuple[LimitLevel, str]]:
    """The keys of a request, in the order of its limits."""
    route, identity = limited.route, limited.identity
    api, resource = route.api, route.resource
    context = api.base_paths[0]
    of_api = f"{context}:{api.version}"
    user = identity.user
    if user and "@" not in user:
        user = f"{user}@{SUPER_TENANT}"
    tier = api.tier or resource.tier
    if tier is not None:
        level, subject = LimitLevel.API, of_api
        if api.tier is None:
            level = LimitLevel.RESOURCE
            subject = f"{context}/{api.version}{resource.template}:{limited.request.method}"
        if tier.per_user:
            subject = f"{subject}_{user}"
        groups = find_fitting_groups(tier.conditions, limited)
        yield level, subject
        for name in [group.name for group in groups] or ["default"]:
            yield level, f"{subject}_{name}"
    application = identity.application
    if application is None or not application.number:
        return
    if limited.tier is None or limited.tier.stop_on_quota_reach:
        yield LimitLevel.SUBSCRIPTION, f"{application.number}:{of_api}"
    if user:
        yield LimitLevel.APPLICATION, f"{application.number}:{user}"
