"""Finds the deny rule that refuses a caller: those of an emergency first, then the catalog's."""

from __future__ import annotations

from extauthz.model.apis import Api
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.deny_rules import DenyRule, DenyRules
from extauthz.model.identity import Identity
from extauthz.policy.request.client_address import ADDRESS_NOT_KNOWN
from extauthz.ports import Clock


class Blocks:
    """Deny rules that are in force whatever the catalog says. They are replaced as a whole.

    Attributes:
        rules: set by whoever reads them; each question sees one state of them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rules = DenyRules()

    def are_empty(self, catalog: Catalog) -> bool:
        """Whether there is nothing to ask."""
        return self.rules.is_empty and catalog.deny_rules.is_empty

    def find_for_client(
        self, catalog: Catalog, address: str, api: Api | None = None
    ) -> DenyRule | None:
        """See `DenyRules.find_for_client`. None: whatever the API is."""
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
        """A rule that refuses whoever has this name, as an application, user or consumer key."""
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
    """What a rule that was found means; where the address is not known, it only may fit.

    is_answered: of a request that was answered, the bytes are charged all the same.
    """
    if rule is None:
        return None
    if rule.network is None or client_address:
        return refuse_by(rule)
    return None if is_answered else ADDRESS_NOT_KNOWN
