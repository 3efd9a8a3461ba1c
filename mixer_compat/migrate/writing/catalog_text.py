"""Writes the draft as a catalog and as settings, in the form of users' files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from extauthz.documents.document import write_duration
from mixer_compat.migrate.writing.draft import (
    ApiDraft,
    CustomLimitDraft,
    DenyDraft,
    Draft,
    LimitDraft,
    ResourceDraft,
    TierDraft,
    WhenDraft,
)

ISSUERS_EXAMPLE: Final = """\
# Who signs the tokens is not in Mixer's objects. Fill this in, and copy it to catalog/issuers.yaml.
# The certificate was in the Secret server-cert as server.pem; it belongs beside issuers.yaml:
#   kubectl -n istio-system get secret server-cert -o jsonpath='{.data.server\\.pem}' \\
#     | base64 -d > catalog/server.pem
issuers:
  - issuer: https://localhost:9443/oauth2/token        # the tokens' iss
    audiences: [http://org.wso2.apimgt/gateway]        # the tokens' aud
    pem_file: server.pem
    subscriptions_from_token: true                     # the claim subscribedAPIs, as before
    claims: {consumer_key: [consumerKey, azp, client_id]}
# For opaque tokens, add opaque to the security of the APIs, and these lines to the issuer. The Secret
# wso2server-secret had API Manager's URL as apim-url, and user:password in base64 as server-token;
# write the password into catalog/apim-password. API Manager's certificate is checked now: ca says
# who may have signed it.
#   key_validation:
#     url: https://apim.example:9443
#     username: admin
#     password_file: apim-password
#   tls: {ca: server.pem}

# Tokens name the tier of each subscription, and a tier that is not here is refused. Name those of
# your API Manager. They limit nothing, as before, until you write limits:
#   Gold: {limits: [{requests: 5000, per: 1m}]}
tiers:
  Gold: {}
  Silver: {}
  Bronze: {}
"""


def write_catalog(draft: Draft) -> str:
    """Writes the text of the catalog file."""
    tree: dict[str, Any] = {
        "apis": [_write_api(api, draft.list_hosts(api)) for api in draft.apis],
        "tiers": {name: _write_tier(tier) for name, tier in draft.tiers.items()},
        "custom_limits": [_write_custom(limit) for limit in draft.custom_limits.values()],
        "deny": [_write_deny(rule) for rule in draft.deny],
    }
    return _dump({key: value for key, value in tree.items() if value})


def write_settings(draft: Draft) -> str:
    """Writes the text of the settings file."""
    tree: dict[str, Any] = {"listen": {"grpc": "0.0.0.0:9001"}, "catalog": {"files": ["catalog/"]}}
    if draft.uses_redis:
        address = draft.redis_address or "127.0.0.1:6379"
        tree["counters"] = {"store": "redis", "url": f"redis://{address}"}
    if draft.profile != "standard":
        tree["responses"] = {"profile": draft.profile}
    return _dump(tree)


def dump_documents(trees: list[dict[str, Any]]) -> str:
    """Writes several YAML documents as one text."""
    return "---\n".join(_dump(tree) for tree in trees)


def _write_api(api: ApiDraft, hosts: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": api.name, "version": api.version}
    if api.context:
        tree["context"] = api.context
    if hosts != ["*"]:
        tree["hosts"] = hosts
    tree["security"] = api.security or ["none"]
    if api.security and not api.subscription:
        tree["subscription"] = "none"
    if api.bearer_header:
        tree["bearer_header"] = api.bearer_header
    if api.api_key_places and "api_key" in api.security:
        tree["api_key_places"] = api.api_key_places
    tree["resources"] = [_write_resource(resource) for resource in api.resources]
    return tree


def _write_resource(resource: ResourceDraft) -> dict[str, Any]:
    tree: dict[str, Any] = {"methods": list(resource.methods), "path": resource.path}
    if resource.scopes:
        tree["scopes"] = list(resource.scopes)
    if resource.needs_all:
        tree["scopes_match"] = "all"
    return tree


def _write_tier(tier: TierDraft) -> dict[str, Any]:
    tree: dict[str, Any] = {"limits": [_write_limit(limit) for limit in tier.limits]}
    if tier.groups:
        tree["conditions"] = [
            {
                "name": name,
                "when": [_write_when(one) for one in when],
                "limits": [_write_limit(limit) for limit in limits],
            }
            for name, when, limits in tier.groups
        ]
    return tree


def _write_limit(limit: LimitDraft) -> dict[str, Any]:
    return {
        "requests": limit.requests,
        "per": write_duration(limit.per_us),
        "algorithm": limit.algorithm,
    }


def _write_custom(limit: CustomLimitDraft) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": limit.name, "key": limit.key, "tier": limit.tier}
    if limit.apis:
        tree["apis"] = list(limit.apis)
    if limit.when:
        tree["when"] = [_write_when(one) for one in limit.when]
    return tree


def _write_when(when: WhenDraft) -> dict[str, Any]:
    tree: dict[str, Any] = {
        when.source: when.pattern
        if when.source == "ip"
        else {"name": when.name, "matches": when.pattern}
    }
    if when.invert:
        tree["invert"] = True
    return tree


def _write_deny(rule: DenyDraft) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": rule.name}
    if rule.network is not None:
        tree["ip"] = str(rule.network)
    if rule.api is not None:
        tree["api"] = rule.api
    if rule.version is not None:
        tree["version"] = rule.version
    if rule.invert:
        tree["invert"] = True
    return tree


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full: YAML's aliases would make a catalog hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump(tree: Mapping[str, Any]) -> str:
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100,
        default_flow_style=None,
    )  # fmt: skip
