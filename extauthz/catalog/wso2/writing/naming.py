"""Gives each row the name that it has in the catalog: unique over all tenants, and stable.

Counters, subscriptions and deny rules go by these names, so a name must not change because
another row comes or goes. What belongs to another tenant than the super tenant has ``@tenant`` at its
end, as users have it in API Manager.
"""

from __future__ import annotations

from typing import Final

from extauthz.catalog.wso2.rows import tenant_of
from extauthz.catalog.wso2.shapes import SUPER_TENANT, ApiRow, ApplicationRow

MAX_NAME: Final = 1024
_PREFIXES: Final = {"subscription": "", "application": "application:", "api": "api:"}


def find_fault(name: str) -> str:
    """Why a catalog does not take a name; empty when it does."""
    if not name:
        return "has no name"
    if name != name.strip() or not name.isprintable():
        return "has a name with spaces at its ends, or with control characters"
    if len(name) > MAX_NAME:
        return f"has a name of more than {MAX_NAME} characters"
    return ""


def in_tenant(name: str, tenant: str) -> str:
    """A name that is unique over all tenants."""
    tenant = tenant_of(tenant)
    return name if tenant == SUPER_TENANT or name.endswith(f"@{tenant}") else f"{name}@{tenant}"


def name_api(row: ApiRow) -> str:
    """The name of an API; its version is kept apart."""
    return in_tenant(row.name, row.organization)


def name_application(row: ApplicationRow) -> str:
    """``owner:name``, as API Manager itself names applications in its deny policies."""
    owner = in_tenant(row.owner, row.organization) if row.owner else ""
    return f"{owner}:{row.name}"


def name_tier(kind: str, name: str, tenant: str) -> str:
    """The name of a policy's tier. Policies of different kinds may have one name."""
    return in_tenant(f"{_PREFIXES[kind]}{name}", tenant)
