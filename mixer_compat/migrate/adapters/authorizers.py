"""Converts what all adapters that checked credentials have in common: the APIs that they guarded.

A rule that guarded some requests now guards all requests to its APIs. All requests to an API that
two adapters guarded are refused: both adapters had to agree, which a catalog cannot express.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mixer_compat.migrate.adapters.targets import apply_to_apis, name_condition
from mixer_compat.migrate.reading.expressions import (
    Attribute,
    ExpressionError,
    list_defaults,
    read_expression,
)
from mixer_compat.migrate.reading.objects import Part
from mixer_compat.migrate.reading.references import Action, Instance
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import ApiDraft, Draft

AUTHORIZATION_TEMPLATES = frozenset(
    {"authorization", "apigee-authorization", "threescale-authorization", "wso2-authorization"}
)


def find_check_instance(action: Action) -> Instance | None:
    """The instance of an action that asked for an authorization; None without one."""
    return next((each for each in action.instances if is_check(each)), None)


def is_check(instance: Instance) -> bool:
    """Whether an instance has an authorization template."""
    return instance.template in AUTHORIZATION_TEMPLATES or instance.template.endswith(
        "authorization"
    )


def guard_apis(action: Action, draft: Draft) -> list[ApiDraft]:
    """Notes that an action guards its APIs, and returns those that no other adapter guards."""
    guarded: dict[ApiDraft, None] = {}
    for alternative in action.alternatives:
        for api, left in apply_to_apis(action, alternative, draft).items():
            for condition in left:
                action.tell_unclear(
                    Outcome.STRICTER,
                    name_condition(condition),
                    f"all requests to API {api.name} need a credential now",
                )
            guarded[api] = None
    free: list[ApiDraft] = []
    for api in guarded:
        by = str(action.handler.object)
        if api.guarded_by not in ("", by):
            draft.refuse([api], "two-authorizers")
            action.part.remark(
                Outcome.STRICTER,
                f"checks requests to API {api.name}, which {api.guarded_by} checks too. "
                "In Mixer both had to allow a request, which a catalog cannot express, "
                "so all requests to the API are refused. Choose one of the two, and "
                "remove the deny rule",
            )
            continue
        api.guarded_by = by
        free.append(api)
    return free


def list_attributes_of(part: Part) -> list[Attribute]:
    """Lists the attributes of an instance's expression, in their order.

    An expression that cannot be read is reported, and has none.
    """
    try:
        alternatives = list_defaults(read_expression(part.read()))
    except ExpressionError as exc:
        part.tell(Outcome.LOST, f"is not an expression that can be read: it {exc}")
        return []
    return [each for each in alternatives if isinstance(each, Attribute)]


def find_key_places(attributes: Iterable[Attribute], api: ApiDraft) -> Iterator[dict[str, str]]:
    """The places of an API key that comes from these attributes, in the catalog's form."""
    for attribute in attributes:
        match attribute:
            case Attribute(name="request.api_key", key=None):
                yield from api.key_places
            case Attribute(name="request.headers", key=str(name)):
                yield {"header": name.lower()}
            case Attribute(name="request.query_params", key=str(name)):
                yield {"query": name}
            case _:
                pass


def is_key_place(attribute: Attribute) -> bool:
    """Whether an attribute is a place of a request that can have an API key."""
    return attribute == Attribute("request.api_key") or (
        attribute.name in ("request.headers", "request.query_params") and attribute.key is not None
    )


def add_places(api: ApiDraft, attributes: Iterable[Attribute]) -> None:
    """Lets an API accept keys in the places of these attributes."""
    for place in find_key_places(attributes, api):
        if place not in api.api_key_places:
            api.api_key_places.append(place)


def add_security(api: ApiDraft, scheme: str) -> None:
    """Lets an API accept a security scheme."""
    if scheme not in api.security:
        api.security.append(scheme)


def tell_params(params: Part | None, words: dict[str, tuple[Outcome, str]]) -> None:
    """Reports the outcome of each of a handler's parameters.

    Args:
        params: the parameters; None without any.
        words: the outcome and message by parameter, in lower case and without ``_``.
    """
    for key, part in () if params is None else params.entries():
        outcome_and_word = words.get(key.replace("_", "").lower())
        if outcome_and_word is not None:
            part.tell(*outcome_and_word)
