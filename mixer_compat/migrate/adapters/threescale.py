"""Converts 3scale's adapter, which checked user keys, application ids with keys, or client ids.

Services, plans, applications and mapping rules are stored at 3scale and not in these objects. So
only the APIs and the places of their credentials are converted; nobody may call these APIs until
the applications are added to the catalog.
"""

from __future__ import annotations

from typing import Final

from mixer_compat.migrate.adapters.apigee import read_action
from mixer_compat.migrate.adapters.authorizers import (
    add_places,
    add_security,
    find_check_instance,
    guard_apis,
    is_key_place,
    list_attributes_of,
    tell_params,
)
from mixer_compat.migrate.reading.expressions import Attribute
from mixer_compat.migrate.reading.objects import Part
from mixer_compat.migrate.reading.references import Action
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import Draft

_PARAMS: Final = {
    "serviceid": (
        Outcome.LOST,
        "the service's plans, applications and mapping rules are at 3scale: write them into the "
        "catalog as tiers, applications, subscriptions and resources",
    ),
    "systemurl": (Outcome.OBSOLETE, "extauthz does not call 3scale"),
    "backendurl": (Outcome.OBSOLETE, "extauthz does not call 3scale"),
    "accesstoken": (
        Outcome.OBSOLETE,
        "is a secret and is not copied; extauthz does not call 3scale",
    ),
}
_ACTION: Final = {
    "path": ("request.url_path", "request.path"),
    "method": ("request.method",),
}


def carry_threescale(action: Action, draft: Draft) -> None:
    """Converts one action of the 3scale adapter."""
    instance = find_check_instance(action)
    if instance is None:
        return
    service_id = "" if action.handler.params is None else action.handler.params.text("service_id")
    tell_params(action.handler.params, _PARAMS)
    keys: list[Attribute] = []
    takes_tokens = False
    subject = None if instance.params is None else instance.params.find("subject")
    user = None if subject is None else subject.find("user")
    if user is not None:
        keys += _read_places(user)
    properties = None if subject is None else subject.find("properties")
    for name, part in () if properties is None else properties.entries():
        if name == "app_key":
            keys += _read_places(part)
        elif name == "app_id":
            list_attributes_of(part)
            part.tell(
                Outcome.LOST,
                "extauthz identifies an application by its key alone, and ignores the id",
            )
        elif name == "client_id":
            takes_tokens = True
            part.tell(
                Outcome.CHECK,
                f"{', '.join(map(str, list_attributes_of(part)))}: now extauthz verifies "
                "tokens, and no longer Istio: add their issuer, with its "
                "claims.consumer_key, to the catalog",
            )
    described = None if instance.params is None else instance.params.find("action")
    read_action(described, _ACTION)
    service = None if described is None else described.find("service")
    if service is not None:
        service.tell(
            Outcome.LOST,
            (
                "selected the service at 3scale by a label of the workload; now the "
                "request's host selects the API"
            ),
        )
    for api in guard_apis(action, draft):
        if service_id and not api.is_named and not any(target.service for target in api.targets):
            api.name, api.is_named = draft.find_free_name(f"threescale-{service_id}"), True
        if keys or not takes_tokens:
            add_security(api, "api_key")
            add_places(api, keys)
        if takes_tokens:
            add_security(api, "jwt")


def _read_places(part: Part) -> list[Attribute]:
    attributes = list_attributes_of(part)
    for attribute in attributes:
        if not is_key_place(attribute):
            part.tell(Outcome.STRICTER, f"extauthz does not look for keys in {attribute}")
    return [attribute for attribute in attributes if is_key_place(attribute)]
