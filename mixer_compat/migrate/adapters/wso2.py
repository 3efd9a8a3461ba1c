"""Converts WSO2's adapter, which checked a bearer token, a subscription and a scope.

- ``validate_subscription`` turned the check on for the values that Go's ParseBool reads as true,
  and off for all others.
- JWTs were verified with one certificate, in a Secret that is not read. Opaque tokens were sent to
  API Manager; only its versions of the year 2018 answered.
- Metrics were sent to WSO2's analytics in a protocol of its own.
"""

from __future__ import annotations

from typing import Final

from mixer_compat.migrate.adapters.authorizers import (
    add_security,
    find_check_instance,
    guard_apis,
    is_check,
    list_attributes_of,
    tell_params,
)
from mixer_compat.migrate.reading.expressions import Attribute
from mixer_compat.migrate.reading.references import Action
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import Draft

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_TOKEN: Final = "auth_header_value"
_EXPECTED: Final = {
    "api_name": Attribute("api.service"),
    "api_version": Attribute("api.version"),
    "api_context": Attribute("api.context"),
    "resource_path": Attribute("request.url_path"),
    "request_path": Attribute("request.url_path"),
    "request_method": Attribute("request.method"),
    "request_resource": Attribute("api.operation"),
    "request_scope": Attribute("resource.scope"),
}
_ANALYTICS: Final = (
    Outcome.LOST,
    (
        "usage is not sent to WSO2's analytics; use Envoy's access log and the service's "
        "metrics instead"
    ),
)
_PARAMS: Final = {
    "disablehostnameverification": (
        Outcome.OBSOLETE,
        "extauthz does not call API Manager for a request; certificates are always checked",
    ),
    "requeststreamappurl": _ANALYTICS,
    "faultstreamappurl": _ANALYTICS,
    "throttlestreamappurl": (Outcome.OBSOLETE, "the adapter never used it"),
    "grpcpoolsize": (Outcome.OBSOLETE, "configured the connection to the analytics"),
    "grpcpoolinitialsize": (Outcome.OBSOLETE, "configured the connection to the analytics"),
}


def carry_wso2(action: Action, draft: Draft) -> None:
    """Converts one action of the WSO2 adapter."""
    instance = find_check_instance(action)
    if instance is None:
        return
    params = action.handler.params
    checks = params is not None and params.text("validate_subscription") in _TRUE
    tell_params(params, _PARAMS)
    header = _read_instance(action)
    draft.profile = "wso2"
    draft.needs_wso2_issuer = True
    for api in guard_apis(action, draft):
        add_security(api, "jwt")
        api.subscription = checks
        if header not in ("", "authorization"):
            api.bearer_header = header
    _tell_of_tokens(action)
    if checks:
        action.handler.object.remark(
            Outcome.STRICTER,
            ("spec", "adapter"),
            "a token names the tier of its subscription, and is refused when the catalog "
            "does not have that tier: issuers.yaml.example has Gold, Silver and Bronze; "
            "add the others",
        )


def _tell_of_tokens(action: Action) -> None:
    action.handler.object.remark(
        Outcome.CHECK,
        ("spec", "adapter"),
        "the certificate that verifies tokens is in a Secret, which is not read: fill in "
        "issuers.yaml.example and copy it to catalog/issuers.yaml. Until then every token is "
        "refused",
    )
    action.handler.object.remark(
        Outcome.LOST,
        ("spec", "adapter"),
        "opaque tokens were validated by API Manager (SOAP validateKey), and are refused "
        "now: fill in key_validation in issuers.yaml.example, and add opaque to the security of "
        "the APIs",
    )


def _read_instance(action: Action) -> str:
    """Reads the instance, and returns the header of the token."""
    header = ""
    for instance in action.instances:
        if not is_check(instance):
            continue
        subject = None if instance.params is None else instance.params.find("subject")
        properties = None if subject is None else subject.find("properties")
        for name, part in () if properties is None else properties.entries():
            expected = _EXPECTED.get(name)
            if expected is None and name != _TOKEN:
                continue  # the adapter did not read this property either
            attributes = list_attributes_of(part)
            if name == _TOKEN:
                if attributes and attributes[0].name == "request.headers" and attributes[0].key:
                    header = attributes[0].key.lower()
                    continue
                part.tell(
                    Outcome.STRICTER,
                    "is not a request header; extauthz looks for tokens in authorization",
                )
            elif attributes[:1] != [expected]:
                part.tell(
                    Outcome.LOST,
                    f"is not {expected}; the API, version, resource and scope of a "
                    "request come from the HTTPAPISpecs alone now",
                )
    return header
