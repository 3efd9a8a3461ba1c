"""The stores of blocks and revocations that the contract holds for, and what spoils them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import yaml

from extauthz.emergency.entries import Entry
from extauthz.emergency.files import EmergencyFile
from extauthz.emergency.reading import EmergencyStore, Reading, read_entry
from extauthz.emergency.redis_store import RedisEmergency
from tests.redis_server import DEPLOYMENTS, Deployment, find_shared, settings_of

KEY = "extauthz:{blocks}"


def a_block(**conditions: Any) -> Entry:
    return read_entry("deny", conditions, "")


def a_revocation(**conditions: Any) -> Entry:
    return read_entry("revoked", conditions, "")


def by_id(*entries: Entry) -> dict[str, Entry | None]:
    return {entry.id: entry for entry in entries}


@dataclass(frozen=True)
class Kept:
    """One place where entries are kept.

    Attributes:
        open: another process's view of it.
        spoil: puts an entry there that is wrong.
        lose: empties the place, as an accident does.
    """

    open: Callable[[], EmergencyStore]
    spoil: Callable[[str], None]
    lose: Callable[[], None]


async def look_again(store: EmergencyStore) -> Reading:
    """What a store says once it has settled; there is news."""
    reading = None
    for _ in range(5):
        reading = await store.look() or reading
    assert reading is not None, "there is no news"
    return reading


@contextmanager
def kept_in_file(folder: Path, suffix: str) -> Iterator[Kept]:
    file = folder / f"blocks.{suffix}"

    def spoil(entry_id: str) -> None:
        tree = yaml.safe_load(file.read_text())
        tree["deny"].append({"id": entry_id, "aplication": "web"})
        file.write_text(json.dumps(tree))

    def lose() -> None:
        file.unlink(missing_ok=True)

    yield Kept(lambda: EmergencyFile(file), spoil, lose)


@contextmanager
def asking_holder(deployment: Deployment) -> Iterator[redis.Redis]:
    """A client of the server that holds the keys."""
    for server in deployment.servers:
        with server.asking() as client:
            try:
                client.set(f"{KEY}:probe", 1)
            except redis.RedisError:
                continue
            client.delete(f"{KEY}:probe")
            yield client
            return
    raise AssertionError("no server takes writes to these keys")


@contextmanager
def kept_in_redis(deployment: Deployment) -> Iterator[Kept]:
    def spoil(entry_id: str) -> None:
        with asking_holder(deployment) as client:
            client.hset(KEY, entry_id, '{"deny": {"aplication": "web"}}')

    yield Kept(lambda: RedisEmergency(settings_of(deployment)), spoil, deployment.flush)


def _keep_in_redis(name: str) -> Callable[[Path], AbstractContextManager[Kept]]:
    return lambda _folder: kept_in_redis(find_shared(name))


KEEPERS: Mapping[str, Callable[[Path], AbstractContextManager[Kept]]] = {
    "yaml": lambda folder: kept_in_file(folder, "yaml"),
    "json": lambda folder: kept_in_file(folder, "json"),
    **{name: _keep_in_redis(name) for name in DEPLOYMENTS},
}
