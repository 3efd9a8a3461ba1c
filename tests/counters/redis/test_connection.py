"""URLs and settings, and connections with TLS, users and Sentinels as settings say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from extauthz.counters.redis.settings import Deployment, RedisAddress, RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.identity import Secret
from extauthz.model.limits import Algorithm, Charge
from tests.builders import S
from tests.redis_server import RedisServer, make_folder

CHARGE = Charge("{a}k", Algorithm.FIXED_WINDOW, 3, 60 * S)
NEEDED = ("+evalsha", "+eval", "+mget", "+set", "+del", "+time")
SENTINEL, CLUSTER = Deployment.SENTINEL, Deployment.CLUSTER


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress(servers=(("cache", 6379),))),
        ("redis://cache:7000/3", RedisAddress(servers=(("cache", 7000),), db=3)),
        ("redis://[::1]:7000", RedisAddress(servers=(("::1", 7000),))),
        ("redis://[::1]", RedisAddress(servers=(("::1", 6379),))),
        ("rediss://cache", RedisAddress(servers=(("cache", 6379),), is_encrypted=True)),
        (
            "redis://us%40er:p%2Fw@cache",
            RedisAddress(servers=(("cache", 6379),), username="us@er", password=Secret("p/w")),
        ),
        ("redis://:pw@cache", RedisAddress(servers=(("cache", 6379),), password=Secret("pw"))),
        ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", db=2)),
        (
            "redis+sentinel://s1,s2:26380/1?service=mine",
            RedisAddress(
                deployment=SENTINEL,
                servers=(("s1", 26379), ("s2", 26380)),
                db=1,
                service="mine",
            ),
        ),
        (
            "rediss+cluster://n1:7001,n2",
            RedisAddress(
                deployment=CLUSTER, servers=(("n1", 7001), ("n2", 6379)), is_encrypted=True
            ),
        ),
    ],
)
def test_reads_a_url(url: str, address: RedisAddress) -> None:
    assert read_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "scheme"),
        ("http://cache", "scheme"),
        ("redis+ring://cache", "scheme"),
        ("redis://", "host"),
        ("redis://cache:port", "host:port"),
        ("redis://cache:70000", "host:port"),
        ("redis://a,b", "several hosts"),
        ("redis://cache/main", "number"),
        ("redis://cache?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("redis+sentinel://s1", "service"),
        ("redis+cluster://n1/2", "database 0"),
        ("unix://run/redis.sock", "three slashes"),
        ("redis://:hunter2@cache:port", "host:port"),
        ("redis://:hunter2@[::1", "not a URL"),
    ],
)
def test_says_what_is_wrong_with_a_url_and_keeps_its_password(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        read_redis_url(url)
    assert "hunter2" not in str(caught.value)


def test_shows_no_password() -> None:
    address = read_redis_url("redis://user:hunter2@cache")
    settings = RedisSettings(address=address)
    assert "hunter2" not in f"{address} {address!r} {settings!r}"
    assert str(address) == "cache:6379"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"prefix": "{x}"}, "braces"),
        ({"cert_file": Path("c")}, "key_file"),
        ({"timeout_s": 0}, "timeout"),
        ({"in_flight": 0}, "in_flight"),
    ],
)
def test_refuses_settings_that_make_no_sense(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RedisSettings(address=RedisAddress(path="/s"), **fields)  # type: ignore[arg-type]


@pytest.fixture
def folder() -> Path:
    return make_folder()


@pytest.fixture
def certificates(folder: Path) -> dict[str, Path]:
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
    files = {name: folder / f"{name}.pem" for name in ("ca", "server", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    server.private_key_and_cert_chain_pem.write_to_path(files["server"])
    client.cert_chain_pems[0].write_to_path(files["cert"])
    client.private_key_pem.write_to_path(files["key"])
    return files


@pytest.fixture
def tls_server(folder: Path, certificates: dict[str, Path]) -> Iterator[RedisServer]:
    server = RedisServer(
        folder,
        *("--tls-ca-cert-file", str(certificates["ca"])),
        *("--tls-cert-file", str(certificates["server"])),
        *("--tls-key-file", str(certificates["server"])),
        is_encrypted=True,
    )
    server.start()
    yield server
    server.kill()


def tls_settings(server: RedisServer, **files: Path) -> RedisSettings:
    address = read_redis_url(f"rediss://127.0.0.1:{server.port}")
    return RedisSettings(address=address, timeout_s=20, connect_timeout_s=20, **files)  # type: ignore[arg-type]


async def test_counts_over_tls_with_a_client_certificate(
    tls_server: RedisServer, certificates: dict[str, Path]
) -> None:
    files = {f"{name}_file": certificates[name] for name in ("ca", "cert", "key")}
    store = RedisCounterStore(tls_settings(tls_server, **files))
    assert (await store.take([CHARGE])).charged
    await store.close()


@pytest.mark.parametrize(
    "chosen", [("ca",), ("cert", "key")], ids=["no client certificate", "unknown authority"]
)
async def test_does_not_count_where_certificates_do_not_hold(
    tls_server: RedisServer, certificates: dict[str, Path], chosen: tuple[str, ...]
) -> None:
    files = {f"{name}_file": certificates[name] for name in chosen}
    store = RedisCounterStore(tls_settings(tls_server, **files))
    with pytest.raises(CounterStoreError):
        await store.take([CHARGE])
    await store.close()


async def test_counts_in_the_database_of_the_url(folder: Path) -> None:
    server = RedisServer(folder).start()
    for url in (f"redis://127.0.0.1:{server.port}/2", f"unix://{server.socket}?db=2"):
        store = RedisCounterStore(RedisSettings(address=read_redis_url(url), timeout_s=20))
        assert (await store.take([CHARGE])).charged
        await store.close()
    with server.asking() as client:
        assert client.info("keyspace")["db2"]["keys"] == 2  # and the marker
    server.kill()


@pytest.fixture
def guarded_server(folder: Path) -> Iterator[RedisServer]:
    """Its user may do what the script needs, to the keys of the default prefix, and no more."""
    server = RedisServer(
        folder,
        *("--user", "default", "off", "+hello"),  # which Redis 6.0 wants to see there
        *("--user", "counter", "on", ">first", "~extauthz:*", *NEEDED),
    )
    server.start()
    yield server
    server.kill()


async def test_a_user_needs_no_more_than_the_script_does_and_its_password_may_change(
    guarded_server: RedisServer, folder: Path
) -> None:
    password = folder / "password"
    password.write_text("first\n")
    address = read_redis_url(f"redis://127.0.0.1:{guarded_server.port}")
    settings = RedisSettings(
        address=address,
        username="counter",
        password_file=password,
        timeout_s=20,
        connect_timeout_s=20,
    )
    store = RedisCounterStore(settings)
    assert (await store.take([CHARGE], dedup_id="1")).charged
    await store.give_back([CHARGE], dedup_id="1")
    await store.close()
    guarded_server.kill()
    password.write_text("second")
    store = RedisCounterStore(settings)
    options = ("--user", "counter", "on", ">second", "~extauthz:*", "+@all")
    server = RedisServer(folder, *options, port=guarded_server.port).start()
    assert (await store.take([CHARGE])).charged
    server.kill()
    await store.close()


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"username": "counter"}, "invalid username-password"), ({"prefix": "other:"}, "permission")],
)
async def test_an_error_of_access_is_not_transient_and_says_no_password(
    guarded_server: RedisServer, folder: Path, fields: dict[str, str], word: str
) -> None:
    password = folder / "password"
    password.write_text("hunter2" if "prefix" not in fields else "first")
    address = read_redis_url(f"redis://127.0.0.1:{guarded_server.port}")
    settings = RedisSettings(
        address=address, username="counter", password_file=password, timeout_s=20
    )
    store = RedisCounterStore(replace(settings, **fields))  # type: ignore[arg-type]
    with pytest.raises(CounterStoreError, match=word) as caught:
        await store.take([CHARGE])
    assert not caught.value.transient
    assert "hunter2" not in str(caught.value)
    await store.close()
