"""One catalog in which every reason can be met, and the keys and tokens of everybody in it."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.backends import CLIENT_ID, Introspection
from tests.keys import PrivateKey, a_jwk, a_jwks, rsa_key, sign_jws

ISSUER: Final = "https://idp.example/"
AWAY: Final = "https://away.example/"
"""An issuer whose keys nobody can fetch."""
AUDIENCE: Final = "world"
REVOKED: Final = "revoked-1"
"""The jti of a token that was taken back."""
PERMITTED_CLIENT: Final = "203.0.113.7"
DENIED_CLIENT: Final = "198.51.100.7"
COSTLY: Final = 1000

MOBILE_UUID: Final = "0b1f6a52-7c1d-4f0e-9a53-2f0c7be1a001"
PORTAL_ID: Final = "gateway_certificate_alias"
INTERNAL_ID: Final = "publisher"
PORTAL: Final = {
    "api_key_issuers": [
        {"name": "portal", "key_ids": [PORTAL_ID], "jwks_file": "../portal.json"},
        {
            "name": "publisher",
            "kind": "internal",
            "key_ids": [INTERNAL_ID],
            "jwks_file": "../portal.json",
        },
    ]
}

_PAST: Final = "2001-02-03T04:05:06Z"
_APPLICATIONS: Final[dict[str, dict[str, Any]]] = {
    "mobile": {"owner": "alice", "uuid": MOBILE_UUID},
    "sandbox": {"key": {"key_type": "SANDBOX"}},
    "pinned": {"key": {"networks": ["203.0.113.0/24"]}},
    "referred": {"key": {"referers": ["https://shop.example/"]}},
    "outdated": {"key": {"expires": _PAST}},
    "rogue": {},
    "stranger": {},
    "blocked": {},
    "waiting": {},
    "counted": {"tier": "One"},
    "bronze": {},
    "hasty": {},
    "uploader": {},
}
_SUBSCRIBED: Final = ("mobile", "sandbox", "pinned", "referred", "outdated", "rogue", "counted")


def _resource(path: str, **fields: Any) -> dict[str, Any]:
    return {"methods": ["POST"], "path": path, **fields}


_APIS: Final[list[dict[str, Any]]] = [
    {
        "name": "World",
        "version": "1.0.0",
        "context": "/world",
        "security": ["jwt", "opaque", "api_key"],
        "resources": [
            _resource("/open"),
            _resource("/scoped", scopes=["read", "write"]),
            _resource("/metered", tier="One"),
            _resource("/public", security=["none"]),
            _resource("/costly", security=["none"], cost=COSTLY),
            {"methods": ["GET"], "path": "/get-only"},
        ],
    },
    {
        "name": "Tokens",
        "version": "1.0.0",
        "context": "/tokens",
        "security": ["jwt"],
        "resources": [_resource("/open")],
    },
    {
        "name": "Keys",
        "version": "1.0.0",
        "context": "/keys",
        "security": ["api_key"],
        "api_key_places": [{"header": "x-api-key"}, {"query": "apikey"}, {"cookie": "session"}],
        "resources": [_resource("/open"), _resource("/public", security=["none"])],
    },
    {
        "name": "Forwarding",
        "version": "1.0.0",
        "context": "/forwarding",
        "security": ["api_key"],
        "forward_credentials": True,
        "resources": [_resource("/open")],
    },
    {
        "name": "Production",
        "version": "1.0.0",
        "context": "/production",
        "key_types": ["PRODUCTION"],
        "subscription": "none",
        "resources": [_resource("/open")],
    },
    {
        "name": "Addressed",
        "version": "1.0.0",
        "context": "/addressed",
        "audiences": ["addressed"],
        "subscription": "none",
        "resources": [_resource("/open")],
    },
    {
        "name": "Blocked",
        "version": "1.0.0",
        "context": "/blocked",
        "state": "BLOCKED",
        "resources": [_resource("/open")],
    },
    {
        "name": "Metered",
        "version": "1.0.0",
        "context": "/metered",
        "tier": "One",
        "subscription": "none",
        "resources": [_resource("/open")],
    },
    {
        "name": "Sides",
        "version": "1.0.0",
        "context": "/sides",
        "security": ["api_key"],
        "resources": [
            {"methods": ["GET"], "path": "/public/*", "security": ["none"]},
            {"methods": ["GET"], "path": "/secret/*"},
        ],
    },
]


class World:
    """The catalog's files, and who is in it.

    Attributes:
        secrets: every secret that was ever given out: none may be in a log.
    """

    def __init__(self, folder: Path, introspection: Introspection, dead_port: int) -> None:
        self.folder = folder
        self.introspection = introspection
        client_secret = secrets.token_urlsafe(24)
        basic = base64.b64encode(f"{CLIENT_ID}:{client_secret}".encode()).decode()
        self.secrets = {client_secret, basic}
        self.keys = {name: self._make_secret("xak") for name in _APPLICATIONS}
        self.catalog = folder / "catalog"
        self.catalog.mkdir(parents=True)
        (folder / "jwks.json").write_text(a_jwks())
        (folder / "portal.json").write_text(a_jwks(a_jwk(rsa_key("portal"), None)))
        (folder / "client-secret").write_text(client_secret)
        self._write("apis.yaml", {"apis": _APIS})
        self._write("consumers.yaml", self._write_consumers())
        self._write("issuers.yaml", _write_issuers(introspection.url, dead_port))
        self._write("portal.yaml", PORTAL)
        self._write("limits.yaml", LIMITS)

    def sign(
        self,
        *,
        key: PrivateKey | bytes | None = None,
        algorithm: str = "RS256",
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token of the application mobile with these headers and claims; `...` leaves one out."""
        now_s = int(time.time())
        made: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "azp": "mobile-client",
            "sub": "carol",
            "jti": secrets.token_hex(8),
            "iat": now_s,
            "exp": now_s + 3600,
            **claims,
        }
        token = sign_jws(
            {"alg": algorithm, "typ": "JWT", "kid": "k1", **(header or {})},
            {name: value for name, value in made.items() if value is not ...},
            key=rsa_key() if key is None else key,
            algorithm=algorithm,
        )
        return self.keep_secret(token)

    def sign_key(self, *, internal: bool = False, **claims: Any) -> str:
        """An API key of the application mobile that a portal signed, or an internal key."""
        entry = {"name": "World", "version": "1.0.0", "subscriptionTier": None}
        made: dict[str, Any] = {
            "sub": "alice",
            "iat": int(time.time()),
            "jti": secrets.token_hex(8),
        }
        if internal:
            made |= {"token_type": "InternalKey", "subscribedAPIs": [entry]}
        else:
            made |= {"application": {"name": "mobile", "owner": "alice", "uuid": MOBILE_UUID}}
        header = {"alg": "RS256", "typ": "JWT", "kid": INTERNAL_ID if internal else PORTAL_ID}
        return self.keep_secret(sign_jws(header, {**made, **claims}, key=rsa_key("portal")))

    def make_opaque(self, *, active: bool = True, **members: Any) -> str:
        """An opaque token of the application mobile, with these members in the answer about it."""
        token = self._make_secret("opaque")
        if active:
            self.introspection.claims[token] = {
                "aud": AUDIENCE,
                "client_id": "mobile-client",
                "sub": "dave",
                **members,
            }
        return token

    def make_refused(self, status: int, body: str) -> str:
        """An opaque token to which the introspection endpoint has this to say."""
        token = self._make_secret("opaque")
        self.introspection.errors[token] = (status, body.encode())
        return token

    def keep_secret(self, token: str) -> str:
        """Notes what of a token must not be logged: all of it, its claims and its signature."""
        self.secrets |= {part for part in (token, *token.split(".")[1:]) if len(part) >= 16}
        return token

    def _make_secret(self, prefix: str) -> str:
        made = f"{prefix}_{secrets.token_urlsafe(24)}"
        self.secrets.add(made)
        return made

    def _write(self, name: str, tree: Mapping[str, Any]) -> None:
        (self.catalog / name).write_text(yaml.safe_dump(tree, sort_keys=False))

    def _write_consumers(self) -> dict[str, Any]:
        applications = []
        for name, said in _APPLICATIONS.items():
            digest = hashlib.sha256(self.keys[name].encode()).hexdigest()
            fields = {field: value for field, value in said.items() if field != "key"}
            api_key = {"sha256": digest, **said.get("key", {})}
            applications.append({"name": name, "api_keys": [api_key], **fields})
        applications[0]["consumer_keys"] = [{"id": "mobile-client", "issuer": ISSUER}]
        subscriptions = [_subscription(name, "World") for name in _SUBSCRIBED]
        subscriptions += [_subscription("mobile", api) for api in ("Tokens", "Forwarding", "Sides")]
        subscriptions += [
            _subscription("blocked", "World", state="BLOCKED"),
            _subscription("waiting", "World", state="ON_HOLD"),
            _subscription("mobile", "Keys", tier="Gold"),
            _subscription("bronze", "World", tier="One"),
            _subscription("hasty", "World", tier="Slow"),
            _subscription("uploader", "World", tier="Megabyte"),
        ]
        return {"applications": applications, "subscriptions": subscriptions}


def _subscription(application: str, api: str, **fields: Any) -> dict[str, Any]:
    return {"application": application, "api": api, "version": "1.0.0", **fields}


def _write_issuers(introspection_url: str, dead_port: int) -> dict[str, Any]:
    introspection = {
        "url": introspection_url,
        "client_id": CLIENT_ID,
        "client_secret_file": "../client-secret",
        "timeout": "30s",
    }
    return {
        "issuers": [
            {
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "jwks_file": "../jwks.json",
                "introspection": introspection,
            },
            {
                "issuer": AWAY,
                "audiences": [AUDIENCE],
                "jwks_url": f"http://127.0.0.1:{dead_port}/jwks",
            },
        ],
        "revoked_tokens": [{"jti": REVOKED}],
    }


LIMITS: Final = {
    "tiers": {
        "Gold": {"limits": [{"requests": 1_000_000, "per": "1h"}]},
        "One": {"limits": [{"requests": 1, "per": "1h"}]},
        "Slow": {
            "limits": [{"requests": 1_000_000, "per": "1h"}],
            "burst": {"requests": 1, "per": "1h"},
        },
        "Megabyte": {"limits": [{"bytes": "1MB", "per": "1h"}]},
        "Unauthenticated": {"limits": [{"requests": COSTLY, "per": "1h"}]},
    },
    "custom_limits": [{"name": "each-meter", "key": "$header.x-meter", "tier": "One"}],
    "deny": [{"application": "rogue"}, {"ip": "198.51.100.0/24"}],
}
