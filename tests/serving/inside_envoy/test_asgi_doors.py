"""Which door a call came to is told by the address that it came to, and by nothing else."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.serving.inside_envoy.asgi_doors import ADDRESS_HEADER, AsgiDoors
from extauthz.serving.inside_envoy.grpc_asgi import Event, Scope
from extauthz.serving.limits import HostLimits
from tests.contracts.rpc_service import DOOR, OTHER_DOOR, OTHER_SERVICE, SERVICE, make_doors

FOUND, UNKNOWN, NOWHERE = "found", "no such method", "no door"


def a_scope(service: str, *addresses: str) -> Scope:
    headers = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    headers += [(ADDRESS_HEADER.encode(), address.encode()) for address in addresses]
    path = f"/{service}/Echo"
    return {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()} | {
        "headers": headers,
        "client": None,
        "extensions": {"http.response.trailers": {}},
    }


async def ask(doors: AsgiDoors, scope: Scope) -> str:
    """What becomes of one call of Echo."""
    sent: list[Event] = []
    answered = asyncio.Event()

    async def receive() -> Event:
        if answered.is_set():
            await asyncio.Event().wait()
        answered.set()
        return {"type": "http.request", "body": b"\0\0\0\0\0", "more_body": False}

    async def send(event: Event) -> None:
        sent.append(event)

    await doors(scope, receive, send)
    if sent[0]["status"] == 503:
        return NOWHERE
    fields = [field for event in sent for field in event.get("headers", [])]
    return FOUND if (b"grpc-status", b"0") in fields else UNKNOWN


@pytest.fixture
def doors() -> AsgiDoors:
    made = AsgiDoors(make_doors(), HostLimits())
    made.route(
        {
            "127.0.0.1:9001": DOOR,
            "0.0.0.0:9002": OTHER_DOOR,
            "[::]:9003": OTHER_DOOR,
            "/run/s": OTHER_DOOR,
        }
    )
    return made


@pytest.mark.parametrize(
    ("addresses", "main", "other"),
    [
        (["127.0.0.1:9001"], FOUND, UNKNOWN),
        (["10.1.2.3:9002"], UNKNOWN, FOUND),
        (["[2001:db8::1]:9003"], UNKNOWN, FOUND),
        (["/run/s"], UNKNOWN, FOUND),
        (["10.1.2.3:9001"], NOWHERE, NOWHERE),
        (["[::1]:9002"], NOWHERE, NOWHERE),
        (["/run/other"], NOWHERE, NOWHERE),
        ([""], NOWHERE, NOWHERE),
        ([], NOWHERE, NOWHERE),
        (["127.0.0.1:9001", "10.1.2.3:9002"], UNKNOWN, FOUND),
    ],
)
async def test_the_address_tells_the_door(
    addresses: list[str], main: str, other: str, doors: AsgiDoors
) -> None:
    assert await ask(doors, a_scope(SERVICE, *addresses)) == main
    assert await ask(doors, a_scope(OTHER_SERVICE, *addresses)) == other


async def test_nobody_is_let_in_before_the_addresses_are_known() -> None:
    doors = AsgiDoors(make_doors(), HostLimits())
    assert await ask(doors, a_scope(SERVICE, "127.0.0.1:9001")) == NOWHERE


async def test_an_only_door_needs_no_address() -> None:
    doors = AsgiDoors({DOOR: make_doors()[DOOR]}, HostLimits())
    assert await ask(doors, a_scope(SERVICE)) == FOUND
    assert await ask(doors, a_scope(OTHER_SERVICE)) == UNKNOWN


async def test_a_drain_is_for_every_door(doors: AsgiDoors) -> None:
    doors.drain()
    assert await ask(doors, a_scope(SERVICE, "127.0.0.1:9001")) == UNKNOWN
    assert await ask(doors, a_scope(OTHER_SERVICE, "/run/s")) == UNKNOWN
