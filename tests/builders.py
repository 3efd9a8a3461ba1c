"""Builders that default everything but the point of a test."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from extauthz.model.apis import Api, Resource
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration
from extauthz.model.identity import SecurityScheme
from extauthz.model.issuers import Issuer
from extauthz.model.limits import Algorithm, Limit, Tier
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.model.subscriptions import Subscription

START_US = 1_700_000_000_000_000
"""2023-11-14T22:13:20Z, the time that every FakeClock begins with."""

S = 1_000_000
"""Microseconds in a second."""

API_KEY = "a-good-key"


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_us: int = START_US) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def advance(self, seconds: float) -> None:
        self.us += round(seconds * S)


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def a_request(
    path: str = "/httpbin/1.0.0/ip",
    *,
    method: str = "GET",
    headers: Headers | dict[str, str] | list[tuple[str, str]] | None = None,
    client: str = "192.0.2.1",
    **fields: Any,
) -> ApiRequest:
    path, _, query = path.partition("?")
    request = ApiRequest(
        method=method,
        host="api.example.com",
        path=path,
        query=query,
        headers=headers if isinstance(headers, Headers) else Headers(headers or {}),
        source=Peer(address=client),
    )
    return replace(request, **fields)


def a_resource(template: str = "/ip", *methods: str, **fields: Any) -> Resource:
    fields.setdefault("security", (SecurityScheme.JWT, SecurityScheme.API_KEY))
    return Resource(methods=methods or ("GET",), template=template, **fields)


def an_api(*resources: Resource, **fields: Any) -> Api:
    fields.setdefault("name", "HttpbinAPI")
    fields.setdefault("version", "1.0.0")
    fields.setdefault("base_paths", ("/httpbin/1.0.0",))
    return Api(resources=resources or (a_resource(),), **fields)


def a_limit(requests: int = 10, *, per_s: float = 60, **fields: Any) -> Limit:
    fields.setdefault("algorithm", Algorithm.FIXED_WINDOW)
    return Limit(requests=requests, window_us=round(per_s * S), **fields)


def a_tier(name: str = "Gold", *limits: Limit, **fields: Any) -> Tier:
    return Tier(name=name, limits=limits, **fields)


def a_catalog(
    *apis: Api,
    application: Application | None = None,
    subscribed: bool = True,
    subscription_fields: dict[str, Any] | None = None,
    issuers: tuple[Issuer, ...] = (),
    **fields: Any,
) -> Catalog:
    """One application "mobile", subscribed to every API, with API_KEY and consumer key "abc123"."""
    apis = apis or (an_api(),)
    mobile = application or Application(name="mobile", owner="alice")
    fields.setdefault("api_keys", [ApiKey(digest=sha256(API_KEY), application=mobile)])
    fields.setdefault("consumer_keys", {("", "abc123"): ClientRegistration(application=mobile)})
    fields.setdefault(
        "subscriptions",
        [
            Subscription(
                application=mobile.name,
                api=api.name,
                version=api.version,
                **(subscription_fields or {}),
            )
            for api in apis
        ]
        if subscribed
        else [],
    )
    return Catalog(apis=apis, applications=[mobile], issuers=issuers, **fields)
