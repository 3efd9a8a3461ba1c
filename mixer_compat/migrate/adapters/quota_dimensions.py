"""Converts the dimensions of a quota to keys of limits, and chooses the overrides that hold.

A dimension on the destination becomes the API. A header, query parameter or claim may be missing,
and a limit whose key needs a missing value does not count. So there is one limit for requests that
have the value, and one for those without. Values that a key cannot contain are counted together.
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
"""The most dimensions that may be missing; each doubles the number of limits."""

_KEYS: Final = {"request.method": "${method}", "api.operation": "${resource}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Constant:
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfApi:
    """A dimension that identifies the service, by the first attribute that has a value."""

    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfRequest:
    """A value of the request that a key can contain; `default` replaces a missing one."""

    source: str
    name: str
    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfKey:
    """A value that a key can contain, but that no condition can test."""

    key: str


@dataclass(frozen=True, slots=True)
class _Together:
    """A dimension whose values are counted together."""


_Dimension = _Constant | _OfApi | _OfRequest | _OfKey | _Together


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The requests without the dimensions in `absent`, and with all others."""

    absent: tuple[str, ...]
    keys: tuple[str, ...]
    when: tuple[WhenDraft, ...]

    def write_key(self, *, apart: bool) -> str:
        """Writes the key template; `apart` adds the API, to count each API by itself."""
        return ":".join([*(["$api", "$version"] if apart else []), *self.keys]) or "all"


@dataclass(slots=True, kw_only=True)
class Dimensions:
    """The dimensions of an instance: requests with different values had separate counts."""

    by_name: dict[str, _Dimension]
    apis: list[ApiDraft]
    variants: list[Variant] = field(default_factory=list)

    @property
    def tells_apis_apart(self) -> bool:
        """Whether each API has a count of its own."""
        return any(isinstance(each, _OfApi) for each in self.by_name.values())

    def plan_tier(
        self, quota: Quota, variant: Variant, api: ApiDraft, cost: int
    ) -> TierDraft | None:
        """Plans the limits for an API's requests of a variant.

        The first override that matches holds, and one that always matches ends the list. When it is
        not known whether an override matches, it holds in addition to the others.

        Args:
            cost: the charge of one request.

        Returns:
            The limits; None when some request could never be admitted.
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
                    "is for a dimension that extauthz cannot distinguish; it applies to "
                    "all requests, beside the other limits",
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
        """The conditions under which an override holds.

        Returns:
            () when it always holds, False when it never does, None when that is not known.
        """
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
        """Whether a value may belong to an API although it is not the name of its service.

        A label that the objects do not show is assumed to be the service's name. An override for a
        value that is no service's name proves this assumption wrong.
        """
        return any(is_assumed_for(each, api) for each in attributes) and not any(
            value in find_values(each, other) for each in attributes for other in self.apis
        )


def read_dimensions(instance: Instance, apis: list[ApiDraft]) -> Dimensions:
    """Reads the dimensions of a quota instance that counts requests to some APIs."""
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
                (
                    f"is not an expression that can be read: it {exc}; requests are not "
                    "counted separately by it"
                ),
            )
            by_name[name] = _Together()
            continue
        dimension = _read_dimension(chain, has_claims=has_claims)
        by_name[name] = dimension
        if isinstance(dimension, _Together):
            part.tell(
                Outcome.STRICTER,
                f"{chain[0] if isinstance(chain[0], Attribute) else 'this'} is not known "
                "to extauthz; requests that differ only in it are counted together",
            )
        elif isinstance(dimension, _OfApi):
            if any(map(is_assumed, dimension.attributes)):
                part.tell(Outcome.CHECK, "is taken for the service, which is the API here")
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
            found.tell(
                Outcome.STRICTER,
                (
                    f"are too many to count separately; requests that differ only in {name} are "
                    "counted together"
                ),
            )
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
    """Whether an attribute has one value for all requests to a service."""
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
            # Requests with the default as their value are counted with those without a value.
            when.append(is_other(one.source, one.name, one.default, invert=not is_there))
            if is_there:
                keys.append(f"${{{one.source}.{one.name}}}")
            else:
                absent.append(name)
        variants.append(Variant(absent=tuple(absent), keys=tuple(keys), when=tuple(when)))
    return variants
