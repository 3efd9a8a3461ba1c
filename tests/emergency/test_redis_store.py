"""Blocks and revocations in Redis: news, losses, failovers, and what others write there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from extauthz.emergency import redis_store
from extauthz.emergency.redis_store import RedisEmergency
from extauthz.errors import EmergencyError
from tests.emergency.stores import KEY, a_block, by_id
from tests.redis_server import (
    Deployment,
    RedisServer,
    find_shared,
    make_folder,
    settings_of,
    start_sentinel,
)

WEB = a_block(application="web")
MOBILE = a_block(application="mobile")
NETWORK = a_block(ip="203.0.113.0/24")

Open = Callable[..., RedisEmergency]


@pytest.fixture
def deployment() -> Deployment:
    return find_shared("redis")


@pytest.fixture
async def open_store(deployment: Deployment) -> AsyncIterator[Open]:
    stores: list[RedisEmergency] = []

    def make(at: Deployment = deployment, **options: Any) -> RedisEmergency:
        stores.append(RedisEmergency(settings_of(at), **options))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


async def read(store: RedisEmergency) -> set[str]:
    """The ids that a new look gives; there must be news."""
    reading = await store.look()
    assert reading is not None
    return set(reading.entries)


async def test_a_replica_that_was_away_has_caught_up_with_one_look(open_store: Open) -> None:
    replica, writer = open_store(), open_store()
    await replica.look()
    await writer.write(by_id(WEB, MOBILE))
    await writer.write({WEB.id: None})
    await writer.write(by_id(NETWORK))
    assert await read(replica) == {MOBILE.id, NETWORK.id}


async def test_a_redis_that_lost_everything_gets_it_back(
    deployment: Deployment, open_store: Open
) -> None:
    first, second = open_store(), open_store()
    await first.write(by_id(WEB, MOBILE))
    await first.look()
    await second.look()
    deployment.flush()
    # What was written before anybody noticed stays, too.
    await open_store().write(by_id(NETWORK))
    everything = {WEB.id, MOBILE.id, NETWORK.id}
    assert await read(first) == everything
    assert await read(second) == everything
    assert await read(open_store()) == everything


async def test_an_entry_that_went_without_a_new_revision_comes_back(
    deployment: Deployment, open_store: Open
) -> None:
    store = open_store()
    await store.write(by_id(WEB, MOBILE))
    await store.look()
    deployment.primary.ask("HDEL", KEY, WEB.id)
    assert await read(store) == {WEB.id, MOBILE.id}
    assert deployment.primary.ask("HEXISTS", KEY, WEB.id) == 1


async def test_what_was_lifted_by_a_newer_revision_does_not_come_back(
    deployment: Deployment, open_store: Open
) -> None:
    stale, writer = open_store(), open_store()
    await writer.write(by_id(WEB, MOBILE))
    await stale.look()
    await writer.write({WEB.id: None})
    assert await read(stale) == {MOBILE.id}
    assert deployment.primary.ask("HEXISTS", KEY, WEB.id) == 0


async def test_an_entry_that_was_put_there_by_hand_is_in_force(
    deployment: Deployment, open_store: Open
) -> None:
    store = open_store()
    await store.look()
    deployment.primary.ask("HSET", KEY, "by-hand", '{"deny": {"user": "mallory"}}')
    assert await read(store) == {"by-hand"}


@pytest.mark.parametrize(
    ("entry_id", "value", "told"),
    [
        ("x", b"", "is larger than"),
        ("x", b"nonsense", "is no JSON of the form"),
        ("x", b"[]", "is no JSON of the form"),
        ("x", b"null", "is no JSON of the form"),
        ("x", b"\xff\xfe", "is no JSON of the form"),
        ("x", b"[" * 5000, "is no JSON of the form"),
        ("x", b'{"deny": {"ip": "192.0.2.1"}, "revoked": {"jti": "t"}}', "is no JSON of the form"),
        ("x", b'{"allow": {"ip": "192.0.2.1"}}', "is no JSON of the form"),
        ("x", b'{"deny": []}', "is no JSON of the form"),
        ("x", b'{"deny": {}}', "has no condition and would refuse everything"),
        ("x", b'{"deny": {"ip": "203.0.113.7/24"}}', "has bits set behind its prefix"),
        ("x", b'{"deny": {"ip": "anywhere"}}', "is neither an address nor a network"),
        ("x", b'{"deny": {"user": 7}}', "must be text"),
        ("x", b'{"deny": {"user": "\\u001b[2J"}}', "no control characters"),
        ("x", b'{"deny": {"version": "v1"}}', "version is of no API"),
        ("x", b'{"deny": {"user": "a", "until": "soon"}}', "must be a time"),
        ("x", b'{"deny": {"user": "a", "until": "2030-01-31T12:00:00"}}', "its time zone"),
        ("x", b'{"revoked": {"sha256": "abc"}}', "64 hexadecimal digits"),
        ("x", b'{"revoked": {"user": "alice"}}', "needs issued_before"),
        ("x", b'{"revoked": {"user": "alice", "jti": "t"}}', "exactly one of"),
        ("x", b'{"deny": {"user": "%s"}}' % (b"a" * 20_000), "is larger than"),
        ("a b", b'{"deny": {"user": "alice"}}', "id"),
        ("\x1b[2J", b'{"deny": {"user": "alice"}}', "id"),
        ("i" * 100_000, b'{"deny": {"user": "alice"}}', "its id is longer than 64"),
    ],
)
async def test_what_cannot_be_read_is_told_and_changes_nothing_else(
    entry_id: str, value: bytes, told: str, deployment: Deployment, open_store: Open
) -> None:
    store = open_store()
    await store.write(by_id(WEB))
    await store.look()
    with deployment.primary.asking() as client:
        client.hset(KEY, entry_id, value)
    reading = await store.look()
    assert reading is not None and set(reading.entries) == {WEB.id}
    (problem,) = reading.problems
    assert told in str(problem)
    assert str(problem).isprintable() and len(str(problem)) < 1000
    # And a process that knows nothing yet reads the same.
    fresh = await open_store().look()
    assert fresh is not None and set(fresh.entries) == {WEB.id}


@pytest.mark.parametrize("key", [KEY, f"{KEY}:revision"])
async def test_keys_of_another_kind_are_an_error_that_says_so(
    key: str, deployment: Deployment, open_store: Open
) -> None:
    deployment.primary.ask("LPUSH", key, "x")
    with pytest.raises(EmergencyError, match=r"Redis at 127\.0\.0\.1:\d+ refused: .*WRONGTYPE"):
        await open_store().look()


@pytest.mark.parametrize("revision", ["", "nonsense", "-", "1" * 400, "9-a\x1b[2J"])
async def test_a_revision_from_elsewhere_loses_nothing(
    revision: str, deployment: Deployment, open_store: Open
) -> None:
    store = open_store()
    await store.write(by_id(WEB))
    await store.look()
    deployment.primary.ask("SET", f"{KEY}:revision", revision)
    await store.write(by_id(MOBILE))
    assert await read(store) == {WEB.id, MOBILE.id}


@pytest.mark.parametrize(
    "revision",
    [
        "9" * 26 + "-ab",
        "9007199254740993-ab",
        "5",
        "5-x",
        "-5-ab",
        "nonsense",
        "999999999999-ab",
        "",
    ],
)
async def test_a_block_is_lifted_whatever_was_written_as_the_revision(
    revision: str, deployment: Deployment, open_store: Open
) -> None:
    store, writer = open_store(), open_store()
    await writer.write(by_id(WEB))
    await store.look()
    deployment.primary.ask("SET", f"{KEY}:revision", revision)
    await store.look()
    await writer.write(by_id(MOBILE))
    assert await read(store) == {WEB.id, MOBILE.id}
    await writer.write({WEB.id: None})
    assert await read(store) == {MOBILE.id}
    await writer.write({MOBILE.id: None})
    assert await read(store) == set()


async def test_a_loss_is_seen_behind_many_newer_orders(
    deployment: Deployment, open_store: Open
) -> None:
    """An emptied Redis, or a failover, and then a busy operator before anybody looks again."""
    store, writer = open_store(), open_store()
    await writer.write(by_id(WEB))
    server = deployment.primary
    older = {key: server.ask("DUMP", key) for key in (KEY, f"{KEY}:revision")}
    await writer.write(by_id(MOBILE))
    await store.look()
    blocks = [a_block(user=f"u{number}") for number in range(6)]
    everything = {WEB.id, MOBILE.id, *(block.id for block in blocks)}
    deployment.flush()
    for block in blocks:
        await writer.write(by_id(block))
    assert await read(store) == everything
    for key, state in older.items():
        server.ask("RESTORE", key, 0, state, "REPLACE")
    for block in blocks:
        await writer.write(by_id(block))
    assert await read(store) == everything
    assert await read(open_store()) == everything


async def test_a_loss_while_entries_are_read_takes_nothing_back(
    deployment: Deployment, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    await store.write(by_id(WEB))
    await store.look()
    await store.write(by_id(MOBILE))
    scan = RedisEmergency._scan

    async def scan_what_was_lost(self: RedisEmergency) -> Any:
        deployment.flush()
        return await scan(self)

    monkeypatch.setattr(RedisEmergency, "_scan", scan_what_was_lost)
    with pytest.raises(EmergencyError, match="lost entries while they were read"):
        await store.look()
    monkeypatch.undo()
    assert WEB.id in await read(store)


async def test_what_is_over_gives_its_place_and_what_does_not_fit_is_not_said_to_be_taken(
    open_store: Open,
) -> None:
    store = open_store(max_entries=3)
    ended = a_block(user="ended", until="2020-01-01T00:00:00Z")
    await store.write(by_id(WEB, ended, MOBILE))
    await store.write(by_id(WEB))
    await store.write(by_id(NETWORK))
    assert await read(store) == {WEB.id, MOBILE.id, NETWORK.id}
    with pytest.raises(EmergencyError, match=r"holds 3 .*no more are taken"):
        await store.write(by_id(a_block(user="late")))
    await store.write({WEB.id: None, **by_id(a_block(user="late"))})
    assert len(await read(store)) == 3


async def test_more_than_is_kept_is_told_and_nothing_known_is_lost(
    deployment: Deployment, open_store: Open
) -> None:
    store = open_store(max_entries=500)
    await store.write(by_id(WEB))
    await store.look()
    many: dict[Any, Any] = {f"n{number}": '{"deny": {"ip": "192.0.2.1"}}' for number in range(700)}
    with deployment.primary.asking() as client:
        client.hset(KEY, mapping=many)
    reading = await store.look()
    assert reading is not None
    assert WEB.id in reading.entries
    assert 500 <= len(reading.entries) <= 501
    assert "more than 500 entries" in reading.problems[0].message


async def test_thousands_of_entries_are_read_in_small_pieces(
    deployment: Deployment, open_store: Open
) -> None:
    many: dict[Any, Any] = {
        f"n{n}": json.dumps({"deny": {"ip": f"10.{n >> 8}.{n & 255}.0/24"}}) for n in range(5000)
    }
    with deployment.primary.asking() as client:
        client.hset(KEY, mapping=many)
    deployment.primary.ask("CONFIG", "RESETSTAT")
    assert await read(open_store()) == set(many)
    assert deployment.primary.find_calls()["hscan"] >= 8


async def test_who_has_what_in_force_is_known(open_store: Open) -> None:
    replica, writer = open_store(), open_store()
    await replica.look()
    assert await writer.list_confirmed() == {}
    await replica.confirm()
    first = await writer.write(by_id(WEB))
    ((process, revision),) = (await writer.list_confirmed()).items()
    assert "/" in process and revision != first
    await replica.look()
    await replica.confirm()
    assert await writer.list_confirmed() == {process: first}


async def test_a_redis_that_is_away_is_an_error_and_then_is_not() -> None:
    server = RedisServer(make_folder()).start()
    deployment = Deployment([server], [], f"redis://127.0.0.1:{server.port}")
    store = RedisEmergency(settings_of(deployment))
    try:
        await store.write(by_id(WEB))
        await store.look()
        server.kill()
        for _ in range(2):
            with pytest.raises(EmergencyError, match="did not answer"):
                await store.look()
        server.start()
        # It kept nothing on disk, and gets back what this process knows.
        assert await read(store) == {WEB.id}
        assert server.ask("HLEN", KEY) == 1
    finally:
        await store.close()
        server.kill()


@pytest.fixture
def failing_over() -> Iterator[Deployment]:
    deployment = start_sentinel(make_folder())
    yield deployment
    deployment.stop()


async def until_answered(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Asks again for as long as Redis does not answer; each try takes its time."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except EmergencyError:
                await asyncio.sleep(0)


async def test_after_a_failover_the_new_primary_is_asked(failing_over: Deployment) -> None:
    primary = failing_over.primary
    store = RedisEmergency(settings_of(failing_over))
    try:
        await store.write(by_id(WEB))
        assert primary.ask("WAIT", 1, 20_000) == 1
        await store.look()
        primary.kill()
        await until_answered(partial(store.write, by_id(MOBILE)))
        reading = await until_answered(store.look)
        assert set(reading.entries) == {WEB.id, MOBILE.id}
    finally:
        await store.close()


async def test_what_a_failover_lost_is_written_back(
    deployment: Deployment, open_store: Open
) -> None:
    store = open_store()
    await store.write(by_id(WEB))
    server = deployment.primary
    older = {key: server.ask("DUMP", key) for key in (KEY, f"{KEY}:revision")}
    await store.write(by_id(MOBILE))
    await store.look()
    for key, state in older.items():
        server.ask("RESTORE", key, 0, state, "REPLACE")
    assert await read(store) == {WEB.id, MOBILE.id}
    assert await read(open_store()) == {WEB.id, MOBILE.id}


async def test_a_user_who_may_only_read_sees_every_order(
    deployment: Deployment, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_SAID_EVERY_S", -1.0)
    server = deployment.primary
    allowed = ("~extauthz:*", "+eval", "+get", "+hlen", "+hscan")
    server.ask("ACL", "SETUSER", "reader", "on", ">secret", *allowed)
    try:
        url = deployment.url.replace("redis://", "redis://reader:secret@")
        reader = open_store(Deployment([server], [], url))
        await reader.look()
        with pytest.raises(EmergencyError, match="refused: "):
            await reader.confirm()
        await open_store().write(by_id(WEB))
        assert await read(reader) == {WEB.id}
        with pytest.raises(EmergencyError, match="refused: "):
            await reader.write(by_id(MOBILE))
    finally:
        server.ask("ACL", "DELUSER", "reader")
