"""Counts through Envoy's redis_proxy, which speaks RESP2 only and knows no HELLO."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.demo.processes import run_envoy
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Taking
from tests.builders import S
from tests.free_ports import find_free_port
from tests.redis_server import RedisServer, make_folder


def write_bootstrap(file: Path, port: int, admin_port: int, redis_port: int) -> None:
    """An Envoy that hands on every command to one Redis."""

    def listen(at: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": at}}

    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "redis",
        "settings": {"op_timeout": "5s"},
        "prefix_routes": {"catch_all_route": {"cluster": "redis"}},
    }
    filters = [{"name": "envoy.filters.network.redis_proxy", "typed_config": proxy}]
    endpoint = {"endpoint": {"address": listen(redis_port)}}
    cluster = {
        "name": "redis",
        "load_assignment": {"cluster_name": "redis", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    bootstrap = {
        "admin": {"address": listen(admin_port)},
        "static_resources": {
            "listeners": [{"address": listen(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
        },
    }
    file.write_text(json.dumps(bootstrap))


def charges_of(consumer: int) -> list[Charge]:
    return [
        Charge(f"{{a{consumer}}}{algorithm.value}", algorithm, 3, 3600 * S)
        for algorithm in (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.BURST)
    ]


async def test_counts_exactly_through_envoys_redis_proxy(tmp_path: Path) -> None:
    server = RedisServer(make_folder()).start()
    port, admin_port = find_free_port(), find_free_port()
    write_bootstrap(tmp_path / "envoy.json", port, admin_port, server.port)
    settings = RedisSettings(
        address=read_redis_url(f"redis://127.0.0.1:{port}"), timeout_s=20, connect_timeout_s=20
    )
    with run_envoy(tmp_path / "envoy.json", admin_port, tmp_path / "envoy.log"):
        store = RedisCounterStore(settings)
        takings = await asyncio.gather(*[store.take(charges_of(n % 3)) for n in range(30)])
        assert sum(taking.charged for taking in takings) == 9
        first = await store.take(charges_of(7), dedup_id="once")
        assert first.charged
        assert await store.take(charges_of(7), dedup_id="once") == first
        await store.give_back(charges_of(7), dedup_id="once")
        left = await store.take(charges_of(7))
        assert isinstance(left, Taking)
        assert [reading.remaining for reading in left.readings] == [2, 2, 2]

        server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(CounterStoreError, match="NOREPLICAS") as caught:
            await store.take(charges_of(8))
        assert caught.value.charged_nothing
        server.kill()
        with pytest.raises(CounterStoreError, match="upstream failure") as caught:
            await store.take(charges_of(8))
        assert not caught.value.charged_nothing
        await store.close()
