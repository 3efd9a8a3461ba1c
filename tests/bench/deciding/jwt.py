"""What a JWT costs: verified when it is first seen, and remembered when it comes again.

Whole decisions in this process, bytes in and bytes out, for tokens that all differ: first each
once, with nothing remembered, then each once more. What lies between is the price of the
signature and the claims. CPU time in microseconds; algorithms take turns, medians of repeats.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from time import process_time_ns
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clock import SystemClock
from extauthz.envoy.proto.ext_authz_pb2 import CheckResponse
from extauthz.model.catalog import Catalog
from extauthz.serving.methods import Call
from tests.bench.deciding.core import Bench, make_catalog, make_check_request, sign_token
from tests.bench.tables import Row
from tests.keys import PrivateKey

TITLE = "JWT: seen for the first time, and again"
TOKENS: Final = 300
REPEATS: Final = 9
PATH: Final = "/api3/1.0.0/things7/4711"


def measure() -> list[Row]:
    """One row for each algorithm."""
    return asyncio.run(_measure())


def _make_keys() -> dict[str, PrivateKey]:
    return {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


async def _measure() -> list[Row]:
    now_s = SystemClock().now_us() // 1_000_000
    catalogs: dict[str, Catalog] = {}
    requests: dict[str, list[bytes]] = {}
    token_bytes: dict[str, int] = {}
    for algorithm, key in _make_keys().items():
        print(f"  signing with {algorithm}", file=sys.stderr, flush=True)
        tokens = [sign_token(key, now_s, algorithm=algorithm) for _ in range(TOKENS)]
        token_bytes[algorithm] = round(median(map(len, tokens)))
        catalogs[algorithm] = make_catalog(10, key, algorithm=algorithm)
        requests[algorithm] = [
            make_check_request(PATH, ("authorization", f"Bearer {token}")) for token in tokens
        ]
    first_us: defaultdict[str, list[float]] = defaultdict(list)
    again_us: defaultdict[str, list[float]] = defaultdict(list)
    async with IssuerHttp() as http:
        for repeat in range(REPEATS + 1):
            for algorithm, catalog in catalogs.items():
                bench = Bench(catalog, http)
                # The key itself is read once, with the first token.
                warming, *asked = requests[algorithm]
                await _time(bench, [warming])
                first, again = await _time(bench, asked), await _time(bench, asked)
                if repeat:  # the first one warms up
                    first_us[algorithm].append(first)
                    again_us[algorithm].append(again)
    return [
        {
            "algorithm": algorithm,
            "token, bytes": token_bytes[algorithm],
            "first seen us": _median(first_us[algorithm]),
            "spread us": round(max(first_us[algorithm]) - min(first_us[algorithm]), 1),
            "seen again us": _median(again_us[algorithm]),
            "verifying us": _median(
                [
                    first - again
                    for first, again in zip(first_us[algorithm], again_us[algorithm], strict=True)
                ]
            ),
        }
        for algorithm in catalogs
    ]


async def _time(bench: Bench, requests: Sequence[bytes]) -> float:
    """CPU time of one decision, in microseconds."""
    call = Call()
    answer = b""
    began_ns = process_time_ns()
    for request in requests:
        answer = await bench.service.check(request, call)
    took_ns = process_time_ns() - began_ns
    assert CheckResponse.FromString(answer).status.code == 0, "a token was refused"
    return took_ns / len(requests) / 1000


def _median(values: Sequence[float]) -> float:
    return round(median(values), 1)


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("jwt")))
