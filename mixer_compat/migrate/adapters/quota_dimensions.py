"""The dimensions of a quota: what is counted apart, and which override holds.

A dimension on the destination is the API. A header, query parameter or claim may be missing; a
limit whose key asks for a missing value does not count, so there is one limit for the requests
that have it, and one for those that have not. What a key cannot ask for is counted together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Final

from mixer_compat.migrate.adapters.quota_settings import Override, Quota
from mixer_compat.migrate.adapters.targets import find_values, is_assumed, is_assumed_for
from mixer_compat.migrate.adapters.when import MAX_DEFAULT, equals, find_place, is_other
from mixer_compat.migrate.reading.expressions import (
    Attribute,
    Expression,
    ExpressionError,
    Literal,
    list_defaults,
    read_expression,
)
from mixer_compat.migrate.reading.references import Instance
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import (
    ApiDraft,
    LimitDraft,
    TierDraft,
    WhenDraft,
    combine_limits,
)

MAX_MISSING: Final = 3
"""Dimensions that may be missing: each doubles the limits."""

_KEYS: Final = {"request.method": "${method}", "api.operation": "${resource}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Constant:
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfApi:
    """The first attribute with a value says which service it was."""

    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfRequest:
    """A value that a key can ask for; `default` stands for it when it is missing."""

    source: str
    name: str
    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfKey:
    """A value that a key can ask for and no condition can."""

    key: str


@dataclass(frozen=True, slots=True)
class _Together:
    """Not told apart."""


_Dimension = _Constant | _OfApi | _OfRequest | _OfKey | _Together


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The requests that lack some dimensions (`absent`) and have the others."""

    absent: tuple[str, ...]
    keys: tuple[str, ...]
    when: tuple[WhenDraft, ...]

    def write_key(self, *, apart: bool) -> str:
        """The key template."""
        return ":".join([*(["$api", "$version"] if apart else []), *self.keys]) or "all"


@dataclass(slots=True, kw_only=True)
class Dimensions:
    """What an instance counted apart."""

    by_name: dict[str, _Dimension]
    apis: list[ApiDraft]
    variants: list[Variant] = field(default_factory=list)

    @property
    def tells_apis_apart(self) -> bool:
        """Whether each API is counted by itself."""
        return any(isinstance(each, _OfApi) for each in self.by_name.values())

    def plan_tier(
        self, quota: Quota, variant: Variant, api: ApiDraft, cost: int
    ) -> TierDraft | None:
        """The limits for an API's requests of a variant; None when nothing may pass in some case.

        The first override that fits holds, and one that always fits ends the list. One of which
        it is not known whether it fits holds beside the others.
        """
        limit = quota.limit(quota.amount // cost, quota.per_us)
        groups: list[tuple[str, tuple[WhenDraft, ...], LimitDraft]] = []
        as_well: list[LimitDraft] = []
        for number, override in enumerate(quota.overrides, 1):
            other = quota.limit(override.amount // cost, override.per_us)
            holds = self._judge(override, variant, api)
            if holds is None:
                as_well.append(other)
                override.part.remark(
                    Outcome.STRICTER,
                    "is for something that is not told apart here: it holds for all, beside the "
                    "other limits",
                )
            elif holds == ():
                limit = other
                break
            elif isinstance(holds, tuple):
                groups.append((f"override-{number}", holds, other))
        if not all(one.requests for one in (limit, *as_well, *(one for _, _, one in groups))):
            return None
        return TierDraft(
            limits=combine_limits([limit, *as_well]),
            groups=tuple(
                (name, when, combine_limits([one, *as_well])) for name, when, one in groups
            ),
        )

    def _judge(
        self, override: Override, variant: Variant, api: ApiDraft
    ) -> tuple[WhenDraft, ...] | bool | None:
        """() when an override always holds, conditions when it sometimes does, False for never."""
        when: list[WhenDraft] = []
        unknown = False
        for name, value in override.dimensions:
            dimension = self.by_name.get(name)
            match dimension:
                case None:
                    return False
                case _Constant(value=known):
                    if known != value:
                        return False
                case _OfApi(attributes=attributes):
                    values = {one for each in attributes for one in find_values(each, api)}
                    if not values:
                        unknown = True
                    elif value not in values:
                        if not self._is_misnamed(value, attributes, api):
                            return False
                        unknown = True
                    elif len(api.targets) > 1 and len(values) > 1:
                        unknown = True
                case _OfRequest(source=source, name=place, default=default):
                    if name in variant.absent:
                        if value != default:
                            return False
                        continue
                    if value == default and source != "ip":
                        return False
                    condition = equals(source, place, value)
                    if condition is None:
                        unknown = True
                    else:
                        when.append(condition)
                case _OfKey() | _Together():
                    unknown = True
        return None if unknown else tuple(when)

    def _is_misnamed(self, value: str, attributes: tuple[Attribute, ...], api: ApiDraft) -> bool:
        """Whether a value may be an API's although it is not the name of its service.

        A label is taken to be the service's name where the objects do not tell it. An override
        for a label that no service has for its name shows that this is not so here.
        """
        return any(is_assumed_for(each, api) for each in attributes) and not any(
            value in find_values(each, other) for each in attributes for other in self.apis
        )


def read_dimensions(instance: Instance, apis: list[ApiDraft]) -> Dimensions:
    """The dimensions of a quota instance that counts requests to some APIs."""
    params = instance.params
    found = None if params is None else params.find("dimensions")
    has_claims = all("jwt" in api.security for api in apis)
    by_name: dict[str, _Dimension] = {}
    for name, part in () if found is None else found.entries():
        try:
            chain = list_defaults(read_expression(part.read()))
        except ExpressionError as exc:
            part.tell(
                Outcome.STRICTER,
                f"is no expression that can be read: it {exc}; it is not told apart",
            )
            by_name[name] = _Together()
            continue
        dimension = _read_dimension(chain, has_claims=has_claims)
        by_name[name] = dimension
        if isinstance(dimension, _Together):
            part.tell(
                Outcome.STRICTER,
                f"{chain[0] if isinstance(chain[0], Attribute) else 'this'} cannot be asked for "
                "here: what differs only in it is counted together",
            )
        elif isinstance(dimension, _OfApi):
            if any(map(is_assumed, dimension.attributes)):
                part.tell(Outcome.CHECK, "is taken to be the service, which is the API here")
            if any(len(api.targets) > 1 for api in apis):
                part.tell(Outcome.STRICTER, "the services of one API are counted together")
        elif isinstance(dimension, _OfRequest) and dimension.source == "ip":
            part.remark(
                Outcome.CHECK,
                "clients are counted by their IPv4 address, or the /64 of their IPv6 address",
            )
    dimensions = Dimensions(by_name=by_name, apis=apis)
    missing = [
        (name, one)
        for name, one in by_name.items()
        if isinstance(one, _OfRequest) and one.source != "ip"
    ]
    for name, _ in missing[MAX_MISSING:]:
        by_name[name] = _Together()
        if found is not None:
            found.tell(Outcome.STRICTER, f"are too many to tell apart: {name} is counted together")
    dimensions.variants = _list_variants(by_name, missing[:MAX_MISSING])
    return dimensions


def _read_dimension(chain: list[Expression], *, has_claims: bool) -> _Dimension:
    first = chain[0]
    if isinstance(first, Literal):
        return _Constant(value=str(first.value))
    if not isinstance(first, Attribute):
        return _Together()
    attributes = [each for each in chain if isinstance(each, Attribute)]
    if all(_is_of_api(each) for each in attributes):
        return _OfApi(attributes=tuple(attributes))
    default = chain[1] if len(chain) == 2 else Literal("")
    if len(chain) > 2:
        return _Together()
    place = find_place(first, has_claims=has_claims)
    if place is not None and "}" not in place[1] and "{" not in place[1]:
        value = str(default.value) if isinstance(default, Literal) else ""
        is_known = isinstance(default, Literal) or place[0] == "ip"
        if not is_known or len(value) > MAX_DEFAULT or not value.isprintable():
            return _Together()
        return _OfRequest(source=place[0], name=place[1], default=value)
    key = _KEYS.get(first.name)
    return _Together() if key is None else _OfKey(key=key)


def _is_of_api(attribute: Attribute) -> bool:
    """Whether an attribute tells services apart, and nothing within a service."""
    if attribute.name == "destination.labels":
        return attribute.key == "app"
    return attribute.name in (
        "api.service", "api.version", "destination.service", "destination.service.host",
        "destination.service.name", "destination.namespace", "destination.service.namespace",
        "destination.workload.name", "destination.workload.namespace", "destination.container.name",
    )  # fmt: skip


def _list_variants(
    by_name: dict[str, _Dimension], missing: list[tuple[str, _OfRequest]]
) -> list[Variant]:
    fixed = [one.key for one in by_name.values() if isinstance(one, _OfKey)]
    fixed += [
        "${clientIp}"
        for one in by_name.values()
        if isinstance(one, _OfRequest) and one.source == "ip"
    ]
    variants: list[Variant] = []
    for present in product((True, False), repeat=len(missing)):
        keys, when, absent = list(fixed), [], []
        for (name, one), is_there in zip(missing, present, strict=True):
            # Who sends the default itself is counted with those who send nothing.
            when.append(is_other(one.source, one.name, one.default, invert=not is_there))
            if is_there:
                keys.append(f"${{{one.source}.{one.name}}}")
            else:
                absent.append(name)
        variants.append(Variant(absent=tuple(absent), keys=tuple(keys), when=tuple(when)))
    return variants
