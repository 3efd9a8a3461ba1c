"""Converts Apigee's adapter, which checked API keys or a JWT's claims against Apigee's products.

The products, developers, applications and keys are stored at Apigee and not in these objects. So
only the APIs and the places of their keys are converted; nobody may call these APIs until the
applications are added to the catalog.
"""

from __future__ import annotations

from typing import Final

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

_AT_APIGEE: Final = (
    Outcome.LOST,
    "extauthz does not call Apigee: write its products as tiers, its developers' apps as "
    "applications and their products as subscriptions into the catalog",
)
_SECRET: Final = (Outcome.OBSOLETE, "is a secret and is not copied; extauthz does not call Apigee")
_BUSINESS_OF_ITS_OWN: Final = (Outcome.OBSOLETE, "configured how the adapter worked with Apigee")
_PARAMS: Final = {
    "apigeebase": _BUSINESS_OF_ITS_OWN,
    "customerbase": _BUSINESS_OF_ITS_OWN,
    "hybridconfig": _BUSINESS_OF_ITS_OWN,
    "orgname": _AT_APIGEE,
    "envname": _AT_APIGEE,
    "key": _SECRET,
    "secret": _SECRET,
    "tempdir": _BUSINESS_OF_ITS_OWN,
    "clienttimeout": _BUSINESS_OF_ITS_OWN,
    "allowunverifiedsslcert": _BUSINESS_OF_ITS_OWN,
    "products": _BUSINESS_OF_ITS_OWN,
    "analytics": (Outcome.LOST, "usage is not sent to Apigee's analytics"),
    "auth": _BUSINESS_OF_ITS_OWN,
}
_ACTION: Final = {
    "namespace": ("destination.namespace",),
    "service": ("api.service", "destination.service.host"),
    "path": ("api.operation", "request.path", "request.url_path"),
    "method": ("request.method",),
}


def carry_apigee(action: Action, draft: Draft) -> None:
    """Converts one action of the Apigee adapter."""
    instance = find_check_instance(action)
    if instance is None:
        return
    tell_params(action.handler.params, _PARAMS)
    keys: list[Attribute] = []
    takes_claims = False
    subject = None if instance.params is None else instance.params.find("subject")
    properties = None if subject is None else subject.find("properties")
    for name, part in () if properties is None else properties.entries():
        if name == "json_claims":
            takes_claims = True
            part.tell(
                Outcome.CHECK,
                "the claims came from a token that Istio had verified; now extauthz "
                "verifies tokens itself: add their issuer to the catalog",
            )
        elif name == "api_key":
            attributes = list_attributes_of(part)
            keys += [each for each in attributes if is_key_place(each)]
            _tell_other_places(part, attributes)
    read_action(None if instance.params is None else instance.params.find("action"), _ACTION)
    for api in guard_apis(action, draft):
        if keys or not takes_claims:
            add_security(api, "api_key")
            add_places(api, keys)
        if takes_claims:
            add_security(api, "jwt")


def _tell_other_places(part: Part, attributes: list[Attribute]) -> None:
    for attribute in attributes:
        if not is_key_place(attribute):
            part.tell(Outcome.STRICTER, f"extauthz does not look for keys in {attribute}")


def read_action(part: Part | None, expected: dict[str, tuple[str, ...]]) -> None:
    """Reads an instance's action, and reports values that differ from those of a catalog.

    Args:
        part: the action of the instance; None without one.
        expected: the usual expressions of each field, which need no report.
    """
    for name, each in () if part is None else part.entries():
        if name in expected:
            strange = [one for one in list_attributes_of(each) if one.name not in expected[name]]
            if strange:
                each.tell(
                    Outcome.LOST,
                    f"took the {name} from {strange[0]}; extauthz determines it from the "
                    "request's own host, path and method",
                )
