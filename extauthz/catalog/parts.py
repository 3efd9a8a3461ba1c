"""Defines the checked parts of a catalog, and makes a catalog from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extauthz.errors import ConfigError, Problem
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration, CustomLimit, RevokedToken
from extauthz.model.deny_rules import DenyRule
from extauthz.model.issuers import ApiKeySigner, Issuer
from extauthz.model.limits import Tier
from extauthz.model.routing.route_table import BasePathConflict
from extauthz.model.routing.templates import TemplateError
from extauthz.model.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogParts:
    """Everything in a catalog. The second group has the parts that may be numerous."""

    tiers: Sequence[Tier]
    issuers: Sequence[Issuer]
    api_key_signers: Sequence[ApiKeySigner] = ()
    deny_rules: Sequence[DenyRule]
    custom_limits: Sequence[CustomLimit]
    warnings: Sequence[Problem] = ()

    apis: Sequence[Api]
    applications: Sequence[Application]
    api_keys: Sequence[ApiKey]
    consumer_keys: Mapping[tuple[str, str], ClientRegistration]
    certificates: Mapping[str, ClientRegistration]
    subscriptions: Subscriptions
    revoked: Sequence[RevokedToken]


def index_catalog(parts: CatalogParts, revision: str = "") -> Catalog:
    """The catalog that the parts make.

    Raises:
        ConfigError: its routes contradict each other.
    """
    try:
        return Catalog(
            apis=parts.apis,
            applications=parts.applications,
            api_keys=parts.api_keys,
            consumer_keys=parts.consumer_keys,
            certificates=parts.certificates,
            subscriptions=parts.subscriptions,
            issuers=parts.issuers,
            api_key_signers=parts.api_key_signers,
            deny_rules=parts.deny_rules,
            custom_limits=parts.custom_limits,
            revoked=parts.revoked,
            tiers=parts.tiers,
            revision=revision,
            warnings=parts.warnings,
        )
    except (BasePathConflict, TemplateError) as exc:
        raise refuse_routes(exc) from exc


def refuse_routes(error: BasePathConflict | TemplateError) -> ConfigError:
    """The error for routes that the route table refuses, which the builder should have reported."""
    return ConfigError([Problem(message=str(error))])
