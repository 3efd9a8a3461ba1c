"""The tables of the stand-in: what its administrators and developers have done so far.

Rows have the form of the internal data API, with the fields of every release; the server leaves out
what a release does not know (`extauthz.demo.api_manager.server`). One lock guards all of them.

Source: wso2/product-apim, internal-api client, src/main/resources/api.yaml, at v4.0.0, v4.3.0 and
v4.6.0; the default policies of a new API Manager, as its integration tests assert them
(product-apim, all-in-one-apim, tests-integration, cucumber-tests).
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

SUPER_TENANT: Final = "carbon.super"
SUPER_TENANT_ID: Final = -1234
RESIDENT: Final = "Resident Key Manager"
_NO_LIMIT: Final = 2_147_483_647

SUBSCRIPTION_TIERS: Final[Mapping[str, int]] = {
    "Gold": 5000,
    "Silver": 2000,
    "Bronze": 1000,
    "Unauthenticated": 500,
    "DefaultSubscriptionless": 10000,
    "Unlimited": _NO_LIMIT,
}
"""Requests per minute."""
APPLICATION_TIERS: Final[Mapping[str, int]] = {
    "10PerMin": 10,
    "20PerMin": 20,
    "50PerMin": 50,
    "Unlimited": _NO_LIMIT,
}
API_TIERS: Final[Mapping[str, int]] = {
    "10KPerMin": 10000,
    "20KPerMin": 20000,
    "50KPerMin": 50000,
    "Unlimited": _NO_LIMIT,
}


class Tables:
    """All rows, of all tenants."""

    def __init__(self, issuer: str, jwks_url: str) -> None:
        self.lock = threading.RLock()
        self.apis: list[dict[str, Any]] = []
        self.applications: list[dict[str, Any]] = []
        self.subscriptions: list[dict[str, Any]] = []
        self.key_mappings: list[dict[str, Any]] = []
        self.subscription_policies = [
            {
                **_policy(name, requests, "min"),
                "graphQLMaxComplexity": 0,
                "graphQLMaxDepth": 0,
                "rateLimitCount": 0,
                "rateLimitTimeUnit": "sec",
                "stopOnQuotaReach": True,
            }
            for name, requests in SUBSCRIPTION_TIERS.items()
        ]
        self.application_policies = [
            _policy(name, requests, "min") for name, requests in APPLICATION_TIERS.items()
        ]
        self.api_policies = [
            {**_policy(name, requests, "min"), "applicableLevel": "apiLevel", "conditionGroups": []}
            for name, requests in API_TIERS.items()
        ]
        self.global_policies: list[dict[str, Any]] = []
        self.scopes: list[dict[str, Any]] = []
        self.key_managers: list[dict[str, Any]] = [
            {
                "name": RESIDENT,
                "type": "default",
                "enabled": True,
                "tenantDomain": SUPER_TENANT,
                "tokenType": "DIRECT",
                "configuration": {
                    "issuer": issuer,
                    "certificate_type": "JWKS",
                    "certificate_value": jwks_url,
                    "consumer_key_claim": "azp",
                    "scopes_claim": "scope",
                    "self_validate_jwt": True,
                    "claim_mappings": [],
                },
            }
        ]
        self.revoked_tokens: list[dict[str, Any]] = []
        self.revoked_consumer_keys: list[dict[str, Any]] = []
        self.revoked_subjects: list[dict[str, Any]] = []
        self.blocks: dict[str, list[Any]] = {
            kind: [] for kind in ("api", "application", "ip", "user", "custom", "subscription")
        }
        self.key_templates: list[str] = []
        self.api_keys: list[dict[str, Any]] = []
        self._numbers = iter(range(1, 1 << 62))
        self.tell: Callable[[str, dict[str, Any]], None] = lambda _, __: None
        """Is given the topic and payload of each event."""

    def publish_api(
        self,
        name: str,
        version: str,
        context: str,
        resources: Iterable[Mapping[str, Any]],
        *,
        tenant: str = SUPER_TENANT,
        policy: str = "Unlimited",
        status: str = "PUBLISHED",
        provider: str = "admin",
        is_default: bool = False,
    ) -> dict[str, Any]:
        """Adds an API; a resource has ``method`` and ``path``, and may have ``scopes``,
        ``policy`` and ``auth``. The context has the version in it, as API Manager stores it.
        """
        with self.lock:
            row = {
                "uuid": str(uuid.uuid4()),
                "apiId": next(self._numbers),
                "provider": provider,
                "name": name,
                "version": version,
                "context": context,
                "policy": policy,
                "apiType": "HTTP",
                "status": status,
                "isDefaultVersion": is_default,
                "organization": tenant,
                "urlMappings": [
                    {
                        "authScheme": resource.get("auth", "Any"),
                        "throttlingPolicy": resource.get("policy", "Unlimited"),
                        "httpMethod": resource["method"],
                        "urlPattern": resource["path"],
                        "scopes": list(resource.get("scopes", ())),
                        "operationPolicies": [],
                    }
                    for resource in resources
                ],
            }
            self.apis.append(row)
        self.notify(
            "DEPLOY_API_IN_GATEWAY",
            tenant=tenant,
            apiId=row["apiId"],
            uuid=row["uuid"],
            gatewayLabels=["Default"],
            name=name,
            version=version,
            context=context,
            apiProvider=provider,
            apiType="HTTP",
        )
        return row

    def create_application(
        self, name: str, owner: str, *, policy: str = "Unlimited", tenant: str = SUPER_TENANT
    ) -> dict[str, Any]:
        """Adds an application."""
        with self.lock:
            row = {
                "uuid": str(uuid.uuid4()),
                "id": next(self._numbers),
                "name": name,
                "subName": owner,
                "policy": policy,
                "tokenType": "JWT",
                "groupIds": [],
                "attributes": {},
                "organization": tenant,
            }
            self.applications.append(row)
        self.notify(
            "APPLICATION_CREATE",
            tenant=tenant,
            uuid=row["uuid"],
            applicationId=row["id"],
            applicationName=name,
            applicationPolicy=policy,
            subscriber=owner,
            tokenType="JWT",
            attributes={},
        )
        return row

    def generate_keys(
        self,
        application: Mapping[str, Any],
        *,
        key_type: str = "PRODUCTION",
        key_manager: str = RESIDENT,
    ) -> str:
        """Gives an application a consumer key, and returns it."""
        consumer_key = secrets.token_urlsafe(21)
        with self.lock:
            self.key_mappings.append(
                {
                    "applicationId": application["id"],
                    "applicationUUID": application["uuid"],
                    "consumerKey": consumer_key,
                    "keyType": key_type,
                    "keyManager": key_manager,
                }
            )
        self.notify(
            "APPLICATION_REGISTRATION_CREATE",
            applicationId=application["id"],
            applicationUUID=application["uuid"],
            consumerKey=consumer_key,
            keyType=key_type,
            keyManager=key_manager,
        )
        return consumer_key

    def subscribe(
        self,
        application: Mapping[str, Any],
        api: Mapping[str, Any],
        policy: str = "Gold",
        *,
        state: str = "UNBLOCKED",
    ) -> dict[str, Any]:
        """Subscribes an application to an API."""
        with self.lock:
            row = {
                "subscriptionId": next(self._numbers),
                "subscriptionUUID": str(uuid.uuid4()),
                "policyId": policy,
                "apiId": api["apiId"],
                "apiUUID": api["uuid"],
                "appId": application["id"],
                "applicationUUID": application["uuid"],
                "subscriptionState": state,
            }
            self.subscriptions.append(row)
        self.notify(
            "SUBSCRIPTIONS_CREATE",
            applicationId=application["id"],
            **{name: value for name, value in row.items() if name != "appId"},
        )
        return row

    def revoke(self, token_id: str, *, expires_ms: int | None = None) -> None:
        """Takes a token back, by its ``jti``."""
        if expires_ms is None:
            expires_ms = round((time.time() + 3600) * 1000)
        with self.lock:
            self.revoked_tokens.append({"jwt_signature": token_id, "expiry_time": expires_ms})
        payload = {
            "eventId": str(uuid.uuid4()),
            "revokedToken": token_id,
            "ttl": "3600",
            "expiryTime": expires_ms,
            "type": "JWT",
            "tenantId": SUPER_TENANT_ID,
        }
        self.tell("tokenRevocation", payload)

    def block(self, kind: str, value: Any) -> None:
        """Blocks an API, application, user or address, as `kind` says."""
        with self.lock:
            self.blocks[kind].append(value)
        payload = {
            "blockingCondition": kind.upper(),
            "conditionValue": value if isinstance(value, str) else json.dumps(value),
            "state": "true",
            "tenantDomain": SUPER_TENANT,
            "id": next(self._numbers),
        }
        self.tell("throttleData", payload)

    def notify(self, event_type: str, *, tenant: str = SUPER_TENANT, **fields: Any) -> None:
        """Tells of a change, in the form of the topic ``notification``."""
        now_ms = round(time.time() * 1000)
        inner = {
            "eventId": str(uuid.uuid4()),
            "timeStamp": now_ms,
            "type": event_type,
            "tenantId": SUPER_TENANT_ID,
            "tenantDomain": tenant,
            **fields,
        }
        event = base64.b64encode(json.dumps(inner).encode()).decode()
        payload = {"eventType": event_type, "timeStamp": now_ms, "event": event}
        self.tell("notification", payload)


def _policy(name: str, requests: int, unit: str) -> dict[str, Any]:
    return {
        "id": sum(name.encode()),
        "tenantId": SUPER_TENANT_ID,
        "tenantDomain": SUPER_TENANT,
        "name": name,
        "quotaType": "requestCount",
        "defaultLimit": {
            "quotaType": "requestCount",
            "requestCount": {"timeUnit": unit, "unitTime": 1, "requestCount": requests},
        },
    }
