"""Compares services by turns: the same requests at a fixed rate, each through an Envoy of its own.

Every variant has a service and an Envoy, which all run the whole time; one of them is asked at a
time. Latencies count from when a request was due (`tests.bench.serving.open_loop`). Ratios are the
medians of each round's own, since the machine's speed changes between rounds.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from extauthz.demo.processes import run_envoy, run_extauthz
from extauthz.envoy.configuration.bootstrap import write_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream
from tests.bench.serving.open_loop import offer, read_quantile
from tests.free_ports import find_free_port

_KEY: Final = "test"
_WARM_UP_S: Final = 2
_REQUEST: Final = (
    "GET /things/1.0.0/4711 HTTP/1.1\r\nhost: api.example.com\r\naccept: */*\r\n"
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0\r\n"
    f"x-api-key: {_KEY}\r\n\r\n"
).encode()
_CATALOG: Final = {
    "apis": [
        {
            "name": "Things",
            "version": "1.0.0",
            "context": "/things/1.0.0",
            "resources": [{"methods": ["GET"], "path": "/{id}"}],
        }
    ],
    "applications": [
        {
            "name": "mobile",
            "owner": "alice",
            "api_keys": [
                {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
            ],
        }
    ],
    "subscriptions": [
        {"application": "mobile", "api": "Things", "version": "1.0.0", "tier": "Gold"}
    ],
    "tiers": {"Gold": {"limits": [{"requests": 1_000_000_000, "per": "1m"}]}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What is compared.

    Attributes:
        settings: what the service's settings have besides. Files are in a folder of its own.
        reports: whether Envoy reports its requests (ALS v3).
        change: of what Envoy is told.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    reports: bool = False
    change: Callable[[dict[str, Any]], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Stand:
    """A service and its Envoy: their addresses, and the folder of their files."""

    address: str
    admin: str
    folder: Path


@dataclass(slots=True)
class Measured:
    """Of one variant, a figure for each round; `answered` and `sent` with those of the warm-up."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    sent: int = 0
    answered: int = 0


def find_ratio(figures: Sequence[float], others: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return round(median(one / other for one, other in zip(figures, others, strict=True)), 2)


@contextmanager
def run_stands(
    folder: Path, host: str, upstream: str, variants: Mapping[str, Variant]
) -> Iterator[dict[str, Stand]]:
    """The variants on this host, until the block ends."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(_run_stand(folder / host / name, host, upstream, variant))
            for name, variant in variants.items()
        }


@contextmanager
def _run_stand(folder: Path, host: str, upstream: str, variant: Variant) -> Iterator[Stand]:
    folder.mkdir(parents=True)
    grpc, envoy, admin, own_admin = (find_free_port() for _ in range(4))
    settings = {
        "listen": {"grpc": f"127.0.0.1:{grpc}", "admin": f"127.0.0.1:{own_admin}"},
        "server": {"host": host},
        "catalog": {"files": ["catalog.yaml"]},
        **variant.settings,
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(_CATALOG))
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    bootstrap = write_bootstrap(
        EnvoyParameters(
            upstreams=(Upstream(address=upstream),),
            extauthz=f"127.0.0.1:{grpc}",
            listen=f"127.0.0.1:{envoy}",
            admin_port=admin,
            stdout_log=False,
            access_logs=variant.reports,
        )
    )
    variant.change(bootstrap)
    (folder / "envoy.yaml").write_text(yaml.safe_dump(bootstrap, sort_keys=False))
    with (
        run_extauthz(folder / "extauthz.yaml", f"127.0.0.1:{grpc}", folder / "extauthz.log"),
        run_envoy(folder / "envoy.yaml", admin, folder / "envoy.log"),
    ):
        yield Stand(f"127.0.0.1:{envoy}", f"http://127.0.0.1:{admin}", folder)


def measure_by_turns(
    stands: Mapping[str, Stand], *, per_s: int, rounds: int, seconds: Mapping[str, float]
) -> dict[str, Measured]:
    """Asks each stand in turn, in another order each round.

    Args:
        seconds: how long each of them is asked in a round.
    """
    measured: defaultdict[str, Measured] = defaultdict(Measured)
    for name, stand in stands.items():
        _ask(stand, measured[name], per_s, _WARM_UP_S)
    for one in measured.values():
        one.p50_ms.clear()
        one.p99_ms.clear()
    names = list(stands)
    for number in range(rounds):
        print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for name in names:
            _ask(stands[name], measured[name], per_s, seconds[name])
        names = [*names[1:], names[0]]
    return measured


def _ask(stand: Stand, measured: Measured, per_s: int, seconds: float) -> None:
    offered = offer(stand.address, _REQUEST, per_s=per_s, seconds=seconds)
    took_us = offered.list_latencies_us()
    assert took_us, f"{stand.address}: nothing was let through"
    measured.p50_ms.append(read_quantile(took_us, 0.5) / 1000)
    measured.p99_ms.append(read_quantile(took_us, 0.99) / 1000)
    measured.sent += round(per_s * seconds)
    measured.answered += sum(answer.status != 0 for answer in offered.answers)
