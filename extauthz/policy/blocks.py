"""Finds the deny rule that refuses a caller: an emergency's rules come before the catalog's."""

from __future__ import annotations

from extauthz.model.apis import Api
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.deny_rules import DenyRule, DenyRules
from extauthz.model.identity import Identity
from extauthz.policy.request.client_address import ADDRESS_NOT_KNOWN
from extauthz.ports import Clock


class Blocks:
    """The deny rules of an emergency, looked up together with those of the catalog.

    Attributes:
        rules: the emergency's rules; replaced as a whole by the code that reads them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rules = DenyRules()

    def are_empty(self, catalog: Catalog) -> bool:
        """Whether neither the emergency nor the catalog has deny rules."""
        return self.rules.is_empty and catalog.deny_rules.is_empty

    def find_for_client(
        self, catalog: Catalog, address: str, api: Api | None = None
    ) -> DenyRule | None:
        """See `DenyRules.find_for_client`. When the API is None, only rules for any API fit."""
        name, version = ("", "") if api is None else (api.name, api.version)
        rules = self.rules
        if not rules.is_empty:
            now_us = self._clock.now_us()
            found = rules.find_for_client(address, name, version, now_us=now_us)
            if found is not None:
                return found
        return catalog.deny_rules.find_for_client(address, name, version)

    def find_for_caller(
        self, catalog: Catalog, address: str, api: Api, identity: Identity
    ) -> DenyRule | None:
        """See `DenyRules.find_for_caller`."""
        known = identity.application
        application = identity.application_name if known is None else known.name
        user, consumer_key = identity.user, identity.consumer_key
        return self._find(catalog, address, api.name, api.version, application, user, consumer_key)

    def find_for_name(self, catalog: Catalog, name: str) -> DenyRule | None:
        """A rule that refuses an application, user or consumer key of this name."""
        return self._find(catalog, "", "", "", name, name, name)

    def _find(
        self,
        catalog: Catalog,
        address: str,
        api: str,
        version: str,
        application: str,
        user: str,
        consumer_key: str,
    ) -> DenyRule | None:
        now_us = 0 if self.rules.is_empty else self._clock.now_us()
        for rules in (self.rules, catalog.deny_rules):
            found = rules.find_for_caller(
                address,
                api,
                version,
                application,
                user,
                consumer_key=consumer_key,
                now_us=now_us,
            )
            if found is not None:
                return found
        return None


def refuse_by(rule: DenyRule) -> Denial:
    """The denial of a caller that a rule refuses."""
    return Denial(reason=Reason.BLOCKED, detail="The caller is blocked.", rule=rule.name)


def judge_rule(rule: DenyRule | None, client_address: str, *, is_answered: bool) -> Denial | None:
    """The denial of a rule that was found; None when there is no rule.

    When the client's address is not known, a rule about addresses may fit or not.

    Args:
        is_answered: the request was answered already. Its bytes are charged, although a rule may
            fit.
    """
    if rule is None:
        return None
    if rule.network is None or client_address:
        return refuse_by(rule)
    return None if is_answered else ADDRESS_NOT_KNOWN
