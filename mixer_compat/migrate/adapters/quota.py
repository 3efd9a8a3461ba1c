"""Converts quotas to custom limits, with their APIs and conditions.

A quota counts a request only when a QuotaSpec charges it, a QuotaSpecBinding binds that to the
request's service, and a rule with the quota's instance matches. All rules with the same instance
and handler share one count. The limit is divided by a charge of more than one. Requests that a
catalog cannot distinguish are counted together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mixer_compat.migrate.adapters.api_specs import read_service
from mixer_compat.migrate.adapters.quota_dimensions import Dimensions, Variant, read_dimensions
from mixer_compat.migrate.adapters.quota_settings import Quota, find_quota, read_quotas
from mixer_compat.migrate.adapters.targets import apply_to_apis, name_condition
from mixer_compat.migrate.adapters.when import merge, write_whens
from mixer_compat.migrate.reading.conditions import ALWAYS, Alternative, Comparison, Condition, How
from mixer_compat.migrate.reading.expressions import Attribute
from mixer_compat.migrate.reading.objects import MixerObject, Part
from mixer_compat.migrate.reading.references import Action, Handler, Instance, Objects
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import (
    ApiDraft,
    CustomLimitDraft,
    Draft,
    Target,
    TierDraft,
    WhenDraft,
    combine_limits,
)

ADAPTERS = frozenset({"memquota", "redisquota"})
_MOST_WAYS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A charge of a QuotaSpec for the requests to some services."""

    part: Part
    amount: int
    alternatives: tuple[Alternative, ...]
    targets: tuple[Target, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class _Counted:
    """One quota of one handler, with all its charges."""

    handler: Handler
    instance: Instance
    quota: Quota
    actions: list[Action] = field(default_factory=list)


def read_charges(objects: Objects) -> dict[str, list[Charge]]:
    """Reads all QuotaSpecs and their bindings.

    Returns:
        The charges by the quota's name, in lower case.
    """
    targets: dict[tuple[str, str], list[Target]] = {}
    known = {(found.name, found.namespace) for found in objects.of_kind("QuotaSpec")}
    for binding in objects.of_kind("QuotaSpecBinding"):
        services = [
            read_service(part, binding.namespace) for part in binding.spec.list_parts("services")
        ]
        for part in binding.spec.list_parts("quotaSpecs"):
            key = (part.text("name"), part.text("namespace") or binding.namespace)
            if key not in known:
                part.tell(
                    Outcome.LOST,
                    f"there is no QuotaSpec {key[1]}/{key[0]} among the objects; export it too",
                )
            targets.setdefault(key, []).extend(services)
    charges: dict[str, list[Charge]] = {}
    for found in objects.of_kind("QuotaSpec"):
        bound = tuple(dict.fromkeys(targets.get((found.name, found.namespace), ())))
        if not bound:
            found.tell(
                Outcome.LOST, (), "is bound to no service, so it charged nothing; it is left out"
            )
            continue
        for rule in found.spec.list_parts("rules"):
            alternatives = _read_clauses(rule)
            for part in rule.list_parts("quotas"):
                charge = Charge(
                    part=part,
                    amount=_read_charge(part),
                    alternatives=alternatives,
                    targets=bound,
                )
                charges.setdefault(part.text("quota").lower(), []).append(charge)
    return charges


def _read_charge(part: Part) -> int:
    found = part.find("charge")
    text = "1" if found is None else found.read()
    if text.isdigit() and len(text) < 13:
        return int(text)
    if found is not None:
        found.tell(Outcome.STRICTER, "is not a whole number; 1 is used")
    return 1


def _read_clauses(rule: Part) -> tuple[Alternative, ...]:
    """Reads the matches of a QuotaSpec's rule: all clauses of one of them must hold."""
    found: list[Alternative] = []
    for match in rule.list_parts("match"):
        clauses = match.find("clause")
        conditions: list[Condition] = []
        for name, part in () if clauses is None else clauses.entries():
            for word, how in (
                ("exact", How.EQUALS), ("prefix", How.STARTS_WITH), ("regex", How.MATCHES),
            ):  # fmt: skip
                value = part.find(word)
                if value is not None:
                    text = value.read()
                    pattern = f"^(?:{text})$" if how is How.MATCHES else text
                    conditions.append(Comparison(subject=Attribute(name), how=how, value=pattern))
        found.append(tuple(conditions))
    return tuple(found) or ALWAYS


def carry_quotas(
    actions: Iterable[Action], charges: dict[str, list[Charge]], objects: Objects, draft: Draft
) -> None:
    """Converts all actions that count requests.

    Args:
        actions: those of quota handlers.
        charges: as `read_charges` returns them.
        objects: all objects, to find those that others name.
        draft: gets the limits.
    """
    counted: dict[tuple[MixerObject, MixerObject], _Counted] = {}
    quotas: dict[Handler, list[Quota]] = {}
    for action in actions:
        handler = action.handler
        if handler not in quotas:
            quotas[handler] = read_quotas(handler, draft)
        for instance in action.instances:
            if instance.template != "quota":
                continue
            quota = find_quota(
                quotas[handler], str(instance.object), objects, handler.object.namespace
            )
            if quota is None:
                action.part.remark(
                    Outcome.LOST,
                    (
                        f"the handler has no quota for {instance.object}, so the instance "
                        "limited nothing"
                    ),
                )
                continue
            key = (handler.object, instance.object)
            if key not in counted:
                counted[key] = _Counted(handler=handler, instance=instance, quota=quota)
            counted[key].actions.append(action)
    for one in counted.values():
        bound = charges.get(one.instance.object.name.lower(), [])
        if bound:
            _Carrier(one, bound, draft).carry()
        else:
            one.instance.object.tell(
                Outcome.LOST,
                (),
                "is not charged by any bound QuotaSpec, so it never counted anything",
            )


class _Carrier:
    """Converts one quota."""

    def __init__(self, counted: _Counted, charges: list[Charge], draft: Draft) -> None:
        self._quota, self._instance = counted.quota, counted.instance
        self._actions, self._charges, self._draft = counted.actions, charges, draft
        self._told = counted.quota.part

    def carry(self) -> None:
        whens = self._find_apis()
        if not whens:
            self._told.remark(
                Outcome.LOST, "no rule applies to a service whose requests are charged to it"
            )
            return
        amounts = {charge.amount for charge in self._charges}
        if len(amounts) > 1:
            self._told.remark(
                Outcome.STRICTER, "is charged different amounts; the largest is always used now"
            )
        cost = max(amounts)
        if cost == 0:
            self._told.remark(Outcome.OBSOLETE, "is charged 0, so it never refused a request")
            return
        dimensions = read_dimensions(self._instance, list(whens))
        for variant in dimensions.variants:
            self._carry_variant(dimensions, variant, whens, cost)

    def _find_apis(self) -> dict[ApiDraft, tuple[WhenDraft, ...]]:
        """The APIs whose requests are counted, each with its conditions."""
        ways: dict[ApiDraft, dict[tuple[WhenDraft, ...], None]] = {}
        for action in self._actions:
            for charge in self._charges:
                combined = [
                    (*one, *other) for one in action.alternatives for other in charge.alternatives
                ]
                for alternative in combined[:_MOST_WAYS]:
                    for api, left in apply_to_apis(action, alternative, self._draft).items():
                        if not any(
                            target.covers(one) for target in charge.targets for one in api.targets
                        ):
                            continue
                        found = write_whens(
                            left if len(combined) <= _MOST_WAYS else (),
                            lambda condition, action=action: action.tell_unclear(  # type: ignore[misc]
                                Outcome.STRICTER,
                                name_condition(condition),
                                "requests are counted whatever its value is",
                            ),
                            has_claims="jwt" in api.security,
                        )
                        ways.setdefault(api, {}).update(dict.fromkeys(found))
        whens: dict[ApiDraft, tuple[WhenDraft, ...]] = {}
        for api, several in ways.items():
            merged = () if () in several else merge(several)
            if merged is None:
                self._told.remark(
                    Outcome.STRICTER,
                    (
                        f"counted requests to API {api.name} under several conditions; now it "
                        "counts all of them"
                    ),
                )
            whens[api] = merged or ()
        return whens

    def _carry_variant(
        self,
        dimensions: Dimensions,
        variant: Variant,
        whens: dict[ApiDraft, tuple[WhenDraft, ...]],
        cost: int,
    ) -> None:
        alike: dict[tuple[TierDraft, tuple[WhenDraft, ...]], list[ApiDraft]] = {}
        for api, when in whens.items():
            tier = dimensions.plan_tier(self._quota, variant, api, cost)
            if tier is None:
                self._draft.refuse([api], f"{self._quota.name or 'quota'}-is-zero")
                self._told.remark(
                    Outcome.STRICTER,
                    f"allowed no request to API {api.name} under some condition; all "
                    "requests to it are refused now",
                )
                continue
            alike.setdefault((tier, when), []).append(api)
        if len(alike) > 1 and not dimensions.tells_apis_apart:
            # They shared one count; as several limits they would admit more requests.
            self._told.remark(
                Outcome.STRICTER,
                "applied under different conditions to several services that shared a "
                "counter; now all their requests are counted, by all of these limits",
            )
            every = [limit for tier, _ in alike for limit in tier.limits]
            every += [limit for tier, _ in alike for *_, limits in tier.groups for limit in limits]
            together = TierDraft(limits=combine_limits(every))
            alike = {(together, ()): [api for apis in alike.values() for api in apis]}
        for (tier, when), apis in alike.items():
            everywhere = set(apis) == set(self._draft.apis)
            names = {api.name for api in apis}
            if any(api.name in names and api not in apis for api in self._draft.apis):
                self._told.remark(
                    Outcome.STRICTER,
                    f"counts all versions of {', '.join(sorted(names))} now, also those that were "
                    "not charged",
                )
            name = self._free_name(apis, variant, several=len(alike) > 1)
            self._draft.custom_limits[name] = CustomLimitDraft(
                name=name,
                key=variant.write_key(apart=dimensions.tells_apis_apart),
                tier=self._name_tier(tier, name),
                apis=() if everywhere else tuple(dict.fromkeys(api.name for api in apis)),
                when=tuple(dict.fromkeys((*when, *variant.when))),
            )

    def _free_name(self, apis: list[ApiDraft], variant: Variant, *, several: bool) -> str:
        parts = [self._instance.object.name]
        if several:
            parts.append(apis[0].name)
        parts += [f"without-{name}" for name in variant.absent]
        name = "-".join(parts)
        taken = self._draft.custom_limits
        return next(
            free
            for number in range(1, len(taken) + 2)
            if (free := name if number == 1 else f"{name}-{number}") not in taken
        )

    def _name_tier(self, tier: TierDraft, name: str) -> str:
        for known, other in self._draft.tiers.items():
            if other == tier:
                return known
        self._draft.tiers[name] = tier
        return name
