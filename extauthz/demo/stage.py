"""Writes the demonstration's keys, catalog, settings and Envoy configuration into one folder.

All files have the form that users write, so that readers can try changes afterwards. The catalog
has HttpbinAPI 1.0.0, the usual example of this field, and PetsAPI.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from extauthz.envoy.configuration.bootstrap import render_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream

ISSUER: Final = "https://idp.example/"
AUDIENCE: Final = "httpbin"
CONSUMER_KEY: Final = "abc123"
BASE_PATH: Final = "/httpbin/1.0.0"
_TOKEN_LIFE_S: Final = 3600
_PATIENT_MS: Final = 5_000
"""The time-out of a check. The first of an issuer waits for its keys, on a machine that is busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports on loopback: of the service (`grpc`, `admin`), and of Envoy."""

    grpc: int
    admin: int
    envoy: int
    envoy_admin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The files and addresses that every demonstration has."""

    folder: Path
    settings_file: Path
    bootstrap_file: Path
    grpc_address: str
    envoy_port: int
    envoy_admin_port: int
    admin_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Surroundings):
    """The files and credentials of the demonstration with files.

    Attributes:
        keys: API keys by application.
    """

    keys: dict[str, str]
    private_key: rsa.RSAPrivateKey

    def sign_token(self, *scopes: str) -> str:
        """Signs a token of the mobile application with these scopes."""
        now_s = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "azp": CONSUMER_KEY,
            "sub": "alice",
            "scope": " ".join(scopes),
            "iat": now_s,
            "exp": now_s + _TOKEN_LIFE_S,
            "jti": secrets.token_hex(8),
        }
        return jwt.encode(claims, self.private_key, "RS256", headers={"kid": "demo"})


def set_stage(folder: Path, upstream: str, ports: Ports, *, host: str = "grpcio") -> Stage:
    """Writes all files.

    Args:
        folder: the folder for the files.
        upstream: the upstream's address, as ``host:port``.
        host: the name of the service's host, as in the settings.
    """
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = {name: f"xak_{secrets.token_urlsafe(24)}" for name in ("mobile", "partner", "rogue")}
    catalog = folder / "catalog"
    catalog.mkdir(parents=True, exist_ok=True)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    jwks = {"keys": [{**jwk, "kid": "demo", "use": "sig", "alg": "RS256"}]}
    (folder / "jwks.json").write_text(json.dumps(jwks))
    _write_yaml(catalog / "apis.yaml", _APIS)
    _write_yaml(catalog / "consumers.yaml", _consumers(keys))
    around = write_surroundings(folder, upstream, ports, {"files": ["catalog/"]}, host=host)
    return Stage(
        **{field.name: getattr(around, field.name) for field in fields(around)},
        keys=keys,
        private_key=private_key,
    )


def write_surroundings(
    folder: Path,
    upstream: str,
    ports: Ports,
    catalog: dict[str, Any],
    *,
    host: str,
    **settings: Any,
) -> Surroundings:
    """Writes the settings, with this catalog, and Envoy's configuration."""
    around = Surroundings(
        folder=folder,
        settings_file=folder / "extauthz.yaml",
        bootstrap_file=folder / "envoy.yaml",
        grpc_address=f"127.0.0.1:{ports.grpc}",
        envoy_port=ports.envoy,
        envoy_admin_port=ports.envoy_admin,
        admin_port=ports.admin,
    )
    listen = {"grpc": around.grpc_address, "admin": f"127.0.0.1:{ports.admin}"}
    written = {"listen": listen, "server": {"host": host}, "catalog": catalog, **settings}
    _write_yaml(around.settings_file, written)
    parameters = EnvoyParameters(
        upstreams=(Upstream(address=upstream),),
        extauthz=around.grpc_address,
        listen=f"127.0.0.1:{ports.envoy}",
        admin_port=ports.envoy_admin,
        timeout_ms=_PATIENT_MS,
    )
    around.bootstrap_file.write_text(render_bootstrap(parameters))
    return around


def _write_yaml(file: Path, tree: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


_APIS: Final[dict[str, Any]] = {
    "apis": [
        {
            "name": "HttpbinAPI",
            "version": "1.0.0",
            "context": BASE_PATH,
            "security": ["jwt", "api_key"],
            "resources": [
                {"methods": ["GET"], "path": "/ip", "scopes": ["scope_ip"]},
                {"methods": ["GET"], "path": "/headers", "scopes": ["scope_headers"]},
                {"methods": ["GET"], "path": "/delay/{delay}"},
                {"methods": ["GET"], "path": "/status/{status_code}", "tier": "10PerMin"},
            ],
        },
        {
            "name": "PetsAPI",
            "version": "v1",
            "context": "/pets/v1",
            "resources": [{"methods": ["GET", "POST"], "path": "/*"}],
        },
    ],
    "tiers": {
        "Gold": {
            "limits": [{"requests": 5000, "per": "1m"}],
            "burst": {"requests": 100, "per": "1s"},
        },
        "10PerMin": {"limits": [{"requests": 10, "per": "1m"}]},
    },
    "issuers": [
        {
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["RS256"],
            "jwks_file": "../jwks.json",
        }
    ],
}


def _consumers(keys: dict[str, str]) -> dict[str, Any]:
    def digests(name: str) -> list[dict[str, str]]:
        return [{"sha256": hashlib.sha256(keys[name].encode()).hexdigest()}]

    return {
        "applications": [
            {
                "name": "mobile",
                "owner": "alice",
                "api_keys": digests("mobile"),
                "consumer_keys": [{"id": CONSUMER_KEY, "issuer": ISSUER}],
            },
            {"name": "partner", "owner": "bob", "api_keys": digests("partner")},
            {"name": "rogue", "owner": "eve", "api_keys": digests("rogue")},
        ],
        "subscriptions": [
            {"application": "mobile", "api": "HttpbinAPI", "version": "1.0.0", "tier": "Gold"},
            {"application": "partner", "api": "PetsAPI", "version": "v1"},
            {
                "application": "rogue",
                "api": "HttpbinAPI",
                "version": "1.0.0",
                "state": "BLOCKED",
            },
        ],
    }
