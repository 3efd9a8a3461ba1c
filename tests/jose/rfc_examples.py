"""The signatures in RFC 7515 (A.1 to A.5), RFC 7520 (4.1 to 4.4) and RFC 8037 (A.4).

Their text is read out of jwcrypto's own tests, which its wheel ships.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from extauthz.model.decision import Denial, Reason
from extauthz.policy.authentication.tokens import UnverifiedToken, read_token, verify_token
from extauthz.policy.authentication.verification_keys import (
    SUPPORTED_ALGORITHMS,
    NamedKey,
    is_signed,
    read_jwks,
)
from tests.keys import an_issuer, base64url

VERSION: Final = "1.6.1"
FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "jose" / "jwcrypto"
EXPIRES_S: Final = 1_300_819_380
"""The exp of RFC 7515's JWT."""

_EXPORT: Final = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
values = {}
for name in ("tests", "tests-cookbook"):
    found = runpy.run_path(f"{sys.argv[1]}/jwcrypto/{name}.py")
    values |= {name: value for name, value in found.items()
               if isinstance(value, (str, bytes, list, dict))}
print(json.dumps(values, default=lambda value: list(value) if isinstance(value, bytes) else None))
"""


@pytest.fixture(scope="session")
def texts() -> Mapping[str, Any]:
    """The values that jwcrypto's tests name."""
    if not (FOLDER / "jwcrypto").exists():
        get = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(FOLDER))
        subprocess.run((*get, f"jwcrypto=={VERSION}"), check=True)
        (wheel,) = FOLDER.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(FOLDER)
    export = (sys.executable, "-W", "ignore", "-c", _EXPORT, str(FOLDER))
    done = subprocess.run(export, check=True, capture_output=True, text=True)
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_key(jwk: Mapping[str, Any]) -> NamedKey:
    """As our own reader gives it; a shared secret as its bytes."""
    if jwk["kty"] == "oct":
        return NamedKey(key=decode(jwk["k"]))
    public = {name: jwk[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in jwk}
    return read_jwks(json.dumps({"keys": [public]}).encode()).keys[0]


def write_compact(texts: Mapping[str, Any], name: str) -> str:
    """RFC 7515's examples stand as arrays of numbers."""
    parts = [bytes(texts[f"{name}_{part}"]) for part in ("protected", "payload", "signature")]
    return ".".join(base64url(part) for part in parts)


def list_examples(texts: Mapping[str, Any]) -> list[tuple[str, str, NamedKey]]:
    """Algorithm, compact form and key of each example."""
    shared = texts["SymmetricKeys"]["keys"][1]
    rsa, ec = texts["RSA_Public_Key_3_3"], texts["EC_Public_Key_3_1"]
    edwards = texts["E_Ed25519"]
    return [
        ("HS256", write_compact(texts, "A1"), public_key(shared)),
        ("RS256", write_compact(texts, "A2"), public_key(texts["A2_key"])),
        ("ES256", write_compact(texts, "A3"), public_key(texts["A3_key"])),
        ("ES512", write_compact(texts, "A4"), public_key(texts["A4_key"])),
        ("RS256", texts["JWS_compact_4_1_3"], public_key(rsa)),
        ("PS384", texts["JWS_compact_4_2_3"], public_key(rsa)),
        ("ES512", texts["JWS_compact_4_3_3"], public_key(ec)),
        ("HS256", texts["JWS_compact_4_4_3"], public_key(texts["Symmetric_Key_MAC_3_5"])),
        (
            "EdDSA",
            edwards["jws_serialization_compact"],
            public_key(json.loads(edwards["key_json"])),
        ),
    ]


def test_every_example_is_signed_and_nothing_else_is(texts: Mapping[str, Any]) -> None:
    for number, (algorithm, compact, key) in enumerate(list_examples(texts)):
        text, _, last = compact.rpartition(".")
        signed, signature = text.encode(), decode(last)
        assert is_signed(signed, signature, key=key, algorithm=algorithm), number
        assert not is_signed(signed + b"A", signature, key=key, algorithm=algorithm), number
        changed = bytes((signature[0] ^ 1,)) + signature[1:]
        assert not is_signed(signed, changed, key=key, algorithm=algorithm), number
        same = {algorithm, "Ed25519"} if algorithm == "EdDSA" else {algorithm}
        for other in SUPPORTED_ALGORITHMS - same:
            assert not is_signed(signed, signature, key=key, algorithm=other), (number, other)


@pytest.mark.parametrize("name", ["A2", "A3"])
def test_the_jwts_of_rfc_7515_hold_until_they_expire(texts: Mapping[str, Any], name: str) -> None:
    token = read_token(write_compact(texts, name))
    assert isinstance(token, UnverifiedToken)
    issuer = an_issuer(issuer="joe", audiences=frozenset(), algorithms=("RS256", "ES256"))
    keys = (public_key(texts[f"{name}_key"]),)
    claims = verify_token(token, issuer, keys, (EXPIRES_S - 1) * 1_000_000)
    assert isinstance(claims, dict) and claims["http://example.com/is_root"] is True
    late = verify_token(token, issuer, keys, (EXPIRES_S + issuer.leeway_s) * 1_000_000)
    assert isinstance(late, Denial) and late.reason is Reason.TOKEN_EXPIRED


def test_the_unsecured_jwt_of_rfc_7515_is_refused(texts: Mapping[str, Any]) -> None:
    token = read_token(f"{texts['A5_protected']}.{base64url(bytes(texts['A5_payload']))}.")
    assert isinstance(token, UnverifiedToken)
    issuer = an_issuer(issuer="joe", audiences=frozenset(), algorithms=("RS256", "none"))
    assert isinstance(verify_token(token, issuer, (), 0), Denial)
