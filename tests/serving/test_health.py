from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from extauthz.serving.door import Door
from extauthz.serving.health import HealthState, HealthStatus, health_methods
from extauthz.serving.load import Load
from extauthz.serving.methods import Call, RpcCode, RpcFailure, UnaryMethod
from extauthz.serving.proto.health_pb2 import HealthCheckResponse

SERVICE = "envoy.service.auth.v3.Authorization"
SERVING, NOT_SERVING = HealthStatus.SERVING, HealthStatus.NOT_SERVING


def test_statuses_are_those_of_the_wire() -> None:
    assert {status.name: status.value for status in HealthStatus} == dict(
        HealthCheckResponse.ServingStatus.items()
    )


def test_nothing_serves_before_it_is_said() -> None:
    assert HealthState([SERVICE]).statuses == {"": NOT_SERVING, SERVICE: NOT_SERVING}


def test_a_status_is_set_for_its_service_alone() -> None:
    state = HealthState([SERVICE])
    state.set(SERVICE, SERVING)
    assert state.statuses == {"": NOT_SERVING, SERVICE: SERVING}


def test_after_the_end_nothing_serves_again() -> None:
    state = HealthState([SERVICE])
    state.set_all(SERVING)
    state.shut_down()
    state.set(SERVICE, SERVING)
    state.set_all(SERVING)
    assert state.statuses == {"": NOT_SERVING, SERVICE: NOT_SERVING}


async def test_a_slow_watcher_is_told_the_newest_status_alone() -> None:
    state = HealthState()
    watch = state.watch("")
    assert await anext(watch) is NOT_SERVING
    for status in (SERVING, NOT_SERVING, HealthStatus.UNKNOWN, SERVING):
        state.set("", status)
    assert await anext(watch) is SERVING
    state.shut_down()
    assert [status async for status in watch] == [NOT_SERVING]


async def test_a_watcher_is_not_told_what_it_knows() -> None:
    state = HealthState([SERVICE])
    watch, other = state.watch(""), state.watch(SERVICE)
    assert [await anext(watch), await anext(other)] == [NOT_SERVING, NOT_SERVING]
    following = asyncio.create_task(_next(watch))
    following_other = asyncio.create_task(_next(other))

    asyncio.get_running_loop().call_soon(state.set, "", NOT_SERVING)
    asyncio.get_running_loop().call_soon(state.set, SERVICE, SERVING)

    assert await following_other is SERVING
    assert not following.done()
    state.set("", SERVING)
    assert await following is SERVING
    for each in (watch, other):
        await each.aclose()


async def test_a_watch_that_is_left_gives_its_place_back() -> None:
    state = HealthState(max_watchers=1)
    watch = state.watch("")
    await anext(watch)
    with pytest.raises(RpcFailure) as refused:
        await anext(state.watch(""))
    assert refused.value.code is RpcCode.RESOURCE_EXHAUSTED
    await watch.aclose()
    assert state.watchers == 0
    again = state.watch("")
    assert await anext(again) is NOT_SERVING
    await again.aclose()


async def test_a_watch_after_the_end_is_told_so_and_ends() -> None:
    state = HealthState()
    state.shut_down()
    assert [status async for status in state.watch("")] == [NOT_SERVING]


@pytest.mark.parametrize(
    ("method", "request_bytes", "answer"),
    [
        # As grpc.health.v1 writes them: service = 1, status = 1, statuses = 1 (a map).
        ("Check", b"", b"\x08\x01"),
        # One entry alone, since a map has no order: an empty key, then the status.
        ("List", b"", b"\x0a\x06\x0a\x00\x12\x02\x08\x01"),
    ],
)
async def test_speaks_the_wire_format_of_grpc_health_v1(
    method: str, request_bytes: bytes, answer: bytes
) -> None:
    state = HealthState()
    state.set("", SERVING)
    door = Door([], health=state, load=Load())
    found = door.table.find(f"/grpc.health.v1.Health/{method}")
    assert isinstance(found, UnaryMethod)
    seen = await door.answer_unary(found, request_bytes, Call())
    assert seen == answer


def test_health_is_exempt_from_shedding() -> None:
    assert all(method.exempt for method in health_methods(HealthState()))


async def _next(watch: AsyncGenerator[HealthStatus, None]) -> HealthStatus:
    return await anext(watch)
