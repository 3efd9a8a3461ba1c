"""Writes advice: the lines that ``extauthz explain`` adds for the operator.

Clients must not learn what is configured; an operator may see all of it except secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from extauthz.inspection.slices import LOOK, Turn
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration
from extauthz.model.decision import Denial, Deny, Reason
from extauthz.model.identity import Identity, Place, PlaceKind, SecurityScheme
from extauthz.model.issuers import Issuer
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.policy.authentication.authenticate import takes_everybody
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.matching.match import (
    BASE_PATH_EXTENSION,
    READ_IN_TWO_WAYS,
    WITH_BASE_PATH_OR_WITHOUT,
    read_path,
)
from extauthz.policy.request.client_address import ADDRESS_NOT_KNOWN
from extauthz.policy.subscription import find_tier_in_token

_MOST_LISTED: Final = 10
_MUST_QUOTE: Final = frozenset(":{}[],&*#?|-<>=!%@\\\"' ")

_RESERVED_ESCAPE: Final = re.compile("%(2[146-9A-Ca-c]|3[ADad]|40)")
"""Characters that a segment may have without an escape: ``!$&'()*+,:=@``."""

_CLIENT_CLAIMS: Final = ("cid", "appid", "client", "sub")
"""Claims that name the client with some issuers: Okta, Entra ID (v1), and those that write it as
the subject of a client's own token."""

_FIXED: Final = {
    Reason.INVALID_CREDENTIALS: (
        "Is it an API key? `extauthz key hash` gives the digest that its application must list; one "
        "that is a JWT is verified by `api_key_issuers`.",
        "Is it a token? Its iss, aud, alg and signature must fit one of the issuers:",
    ),
    Reason.AMBIGUOUS_CREDENTIALS: ("Send one credential, in one place, once.",),
    Reason.TOKEN_EXPIRED: ("Get a new token or key; or is a clock wrong?",),
    Reason.TOKEN_INACTIVE: ("Get a new token; or is a clock wrong?",),
    Reason.TOKEN_REVOKED: (
        "Get a new token or key; `revoked_tokens` in the catalog and `extauthz blocks` list what "
        "was taken back.",
    ),
    Reason.AUDIENCE_NOT_ALLOWED: (
        "Get a token for one of the API's `audiences`, or add the token's aud to them in the "
        "catalog.",
    ),
    Reason.CREDENTIAL_NOT_PERMITTED: (
        "The key lists the addresses or referers that may use it; --client gives the address.",
    ),
    Reason.BLOCKED: (
        "Remove the rule below `deny` in the catalog, or take the block back with "
        "`extauthz unblock`.",
    ),
    Reason.UNAVAILABLE: (
        "Nothing was decided. Envoy's failure_mode_allow and status_on_error say what follows.",
    ),
}


def list_advice(
    deny: Deny, request: ApiRequest, catalog: Catalog, places: CredentialPlaces
) -> list[str]:
    """Lines that say what would let the request pass; those that begin with spaces are YAML."""
    lines = list(_FIXED.get(deny.reason, ()))
    match deny.reason:
        case Reason.MISSING_CREDENTIALS:
            lines += _where_to_send(deny, places)
        case Reason.INVALID_CREDENTIALS:
            lines += _first(f"  {name}" for name in catalog.issuers)
        case Reason.MALFORMED_REQUEST:
            lines += _malformed(deny, request)
        case Reason.WRONG_KEY_TYPE if deny.route is not None:
            taken = sorted(key_type.value for key_type in deny.route.api.key_types)
            lines.append(f"The API takes keys of type {', '.join(taken)} only.")
        case Reason.API_NOT_FOUND:
            lines += _hidden_api(request, catalog)
            lines.append("APIs are served at:")
            lines += _first(
                f"  {host}{base or '/'} ({api.name} {api.version})"
                for api in catalog.apis.values()
                for host in api.hosts
                for base in api.base_paths
            )
        case Reason.RESOURCE_NOT_FOUND:
            lines += _resources(request, catalog)
        case Reason.METHOD_NOT_ALLOWED:
            lines.append(f"Allowed methods: {', '.join(deny.denial.allowed_methods)}.")
        case Reason.API_BLOCKED:
            lines += _hidden_api(request, catalog)
        case Reason.SUBSCRIPTION_NOT_FOUND:
            lines += _subscribe(deny, catalog)
        case Reason.SUBSCRIPTION_BLOCKED | Reason.SUBSCRIPTION_INACTIVE:
            lines += _unblock(deny, catalog)
        case Reason.INSUFFICIENT_SCOPE:
            lines += _scopes(deny)
        case Reason.RATE_LIMITED:
            wait_s = -(-deny.denial.retry_after_us // 1_000_000)
            lines.append(f"There is room again in {wait_s} s.")
        case _:
            pass
    return lines


_CREDENTIALS: Final = {
    SecurityScheme.JWT: "consumer key",
    SecurityScheme.OPAQUE: "consumer key",
    SecurityScheme.API_KEY: "API key",
    SecurityScheme.MTLS: "certificate",
}
"""By which credential in the catalog a caller of each scheme is known."""


async def advise_on_credentials(
    catalog: Catalog, application: Application, route: Route | None
) -> list[str]:
    """What of an assumed authentication could not come true: the catalog lacks the credential."""
    asked = () if route is None or takes_everybody(route) else route.resource.security
    kinds = list(dict.fromkeys(_CREDENTIALS[it] for it in asked if it in _CREDENTIALS))
    if not kinds:
        return []
    held = await count_credentials(catalog, application)
    if any(held[kind] for kind in kinds):
        return []
    return [
        f"In truth it cannot authenticate: application {application.name} has no "
        f"{' and no '.join(kinds)} in the catalog."
    ]


async def count_credentials(catalog: Catalog, application: Application) -> dict[str, int]:
    """How many credentials of each kind an application has."""
    tables: dict[str, Iterable[ApiKey | ClientRegistration]] = {
        "API key": catalog.api_keys.values(),
        "consumer key": catalog.consumer_keys.values(),
        "certificate": catalog.certificates.values(),
    }
    held = dict.fromkeys(tables, 0)
    turn = Turn()
    for kind, table in tables.items():
        for number, credential in enumerate(table, 1):
            held[kind] += credential.application is application
            if number % LOOK == 0 and turn.is_over:
                await turn.pass_on()
    return held


def _malformed(deny: Deny, request: ApiRequest) -> Iterable[str]:
    if request.host is None:
        return ("Send one host name or IP address, once, with at most one port.",)
    if deny.denial is ADDRESS_NOT_KNOWN:
        return (
            "X-Forwarded-For has no address where credentials.trusted_hops leads to; is it",
            "what the proxies in front of Envoy send, and is use_remote_address as in Envoy?",
        )
    if deny.denial is READ_IN_TWO_WAYS:
        plain = _RESERVED_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), request.path)
        if plain != request.path:
            return (f"Send it without the escapes that it does not need: {plain}",)
        return ("Send it with escapes in upper case, and encoded once.",)
    if deny.denial is WITH_BASE_PATH_OR_WITHOUT:
        return (
            "Say whether paths have the base path (`sent` or `stripped`): with base_path of the "
            "API,",
            f"or with the context extension {BASE_PATH_EXTENSION} of the route.",
        )
    return (
        "Send the path in its normal form: no `..`, `//`, `%2F`, backslash or semicolon.",
        "Envoy's normalize_path and merge_slashes bring harmless ones into it before it routes.",
    )


def _where_to_send(deny: Deny, places: CredentialPlaces) -> list[str]:
    if deny.route is None:
        return []
    lines = ["Send one of:"]
    for scheme in deny.route.resource.security:
        match scheme:
            case SecurityScheme.JWT | SecurityScheme.OPAQUE:
                where = map(_say_place, places.of_bearer(deny.route.api))
                lines.append(f"  {scheme.value}: a bearer token in {', '.join(where)}")
            case SecurityScheme.API_KEY:
                where = map(_say_place, places.of_api_key(deny.route.api))
                lines.append(f"  api_key: in {', '.join(where)}")
            case SecurityScheme.MTLS:
                lines.append("  mtls: a client certificate (here: --principal NAME)")
            case SecurityScheme.NONE:
                lines.append("  none: no credential, and nothing where one would stand")
    return lines


def _say_place(place: Place) -> str:
    kinds = {PlaceKind.QUERY: "query parameter", PlaceKind.CONNECTION: "the connection"}
    return f"{kinds.get(place.kind, place.kind.value)} {place.name}".strip()


def _find_api(request: ApiRequest, catalog: Catalog) -> Api | None:
    """The API at the request's host and path, whatever its state."""
    path = read_path(request.path)
    if isinstance(path, Denial) or request.host is None:
        return None
    found = catalog.routes.find_api(request.host, path.texts)
    return None if found is None else found[0]


def _hidden_api(request: ApiRequest, catalog: Catalog) -> list[str]:
    api = _find_api(request, catalog)
    if api is None:
        return []
    return [
        f"The state of {api.name} {api.version} is {api.state.value}. To let calls through,",
        "change it in the catalog:",
        "  state: PUBLISHED",
    ]


def _resources(request: ApiRequest, catalog: Catalog) -> list[str]:
    api = _find_api(request, catalog)
    if api is None:
        return []
    lines = [f"{api.name} {api.version} has, below {api.base_paths[0] or '/'}:"]
    return lines + _first(
        f"  {' '.join(resource.methods)} {resource.template}" for resource in api.resources
    )


def _subscribe(deny: Deny, catalog: Catalog) -> list[str]:
    assert deny.route is not None
    api, identity = deny.route.api, deny.identity
    tier = find_tier_in_token(identity.subscribed or {}, api)
    if tier is not None:
        return [f"The token names the tier {tier!a}. Add it below `tiers`."]
    name = "NAME"
    lines = []
    if identity.application is not None:
        name = identity.application.name
    elif identity.consumer_key:
        lines += ["No application has the consumer key. Add it to one:", "  applications:"]
        lines.append(f"    - name: {name}")
        lines.append(f"      consumer_keys: [{_consumer_key(identity)}]")
    elif identity.issuer in catalog.issuers:
        lines += _name_client(identity, catalog.issuers[identity.issuer])
    lines += ["To subscribe, add to the catalog:", "  subscriptions:"]
    application, api_name, version = map(_quote, (name, api.name, api.version))
    lines.append(f"    - {{application: {application}, api: {api_name}, version: {version}}}")
    return lines


def _name_client(identity: Identity, issuer: Issuer) -> list[str]:
    """The setting that names the client's claim, when a claim of the token may be one."""
    other = next((name for name in _CLIENT_CLAIMS if name in identity.claims), None)
    if other is None:
        return ["The token names no client; its issuer has to put one in."]
    names = ", ".join(map(_quote, (*issuer.claims.consumer_key, other)))
    lines = [
        f"The token names no client, unless {other} does. If so, say it at its issuer:",
        f"  claims: {{consumer_key: [{names}]}}",
    ]
    if other == "sub":
        lines.append("That is safe only where no user's sub can be a client's id.")
    return lines


def _consumer_key(identity: Identity) -> str:
    return f"{{id: {_quote(identity.consumer_key)}, issuer: {_quote(identity.issuer)}}}"


def _unblock(deny: Deny, catalog: Catalog) -> list[str]:
    assert deny.route is not None
    api, application = deny.route.api, deny.identity.application
    if application is None:
        return []
    subscription = catalog.subscriptions.get((application.name, api.name, api.version))
    if subscription is None:
        return []
    return [
        f"The subscription of {application.name} to {api.name} {api.version} is "
        f"{subscription.state.value}. Change it in the catalog:",
        "  state: UNBLOCKED",
    ]


def _scopes(deny: Deny) -> list[str]:
    assert deny.route is not None
    resource, held = deny.route.resource, deny.identity.scopes or frozenset()
    missing = [scope for scope in resource.scopes if scope not in held]
    wanted = "all of them" if resource.all_scopes else "any of them is enough"
    return [
        f"The resource asks for {', '.join(resource.scopes)} ({wanted}).",
        f"The token has {', '.join(sorted(held)) or 'none'}; missing: {', '.join(missing)}.",
    ]


def _first(lines: Iterable[str]) -> list[str]:
    listed = list(lines)
    rest = len(listed) - _MOST_LISTED
    return listed[:_MOST_LISTED] + ([f"  … and {rest} more"] if rest > 0 else [])


def _quote(text: str) -> str:
    """The text as it stands in YAML's flow style."""
    is_word = text.lower() in ("true", "false", "null")
    if text and not is_word and not _MUST_QUOTE.intersection(text) and text.isprintable():
        return text
    return "'" + text.replace("'", "''") + "'"
