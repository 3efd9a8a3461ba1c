"""Blocks are listed, written and taken back where the command line does it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from extauthz.emergency.reading import EmergencyStore
from extauthz.emergency.watch import EmergencyWatch
from extauthz.inspection.blocking import BadBlock, Blocking, BlockOrder, NotBlocked
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.blocks import Blocks
from extauthz.telemetry.decision_log.masking import Masks
from tests.builders import FakeClock, a_catalog
from tests.emergency.stores import KEEPERS, Kept, a_revocation, by_id

MASKS = Masks()


@pytest.fixture(params=["yaml", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with ExitStack() as stack:
        yield stack.enter_context(KEEPERS[request.param](tmp_path))


class Service:
    """The blocks of a service that reads one place."""

    def __init__(self, kept: Kept) -> None:
        catalog, clock = a_catalog(), FakeClock()
        self.store = kept.open()
        self.watch = EmergencyWatch(
            [self.store],
            blocks=Blocks(clock),
            revocations=Revocations(clock),
            clock=clock,
            catalog=lambda: catalog,
        )

        @asynccontextmanager
        async def open_stores() -> AsyncIterator[list[EmergencyStore]]:
            store = kept.open()
            yield [store]
            await store.close()

        self.blocking = Blocking(self.watch, lambda: catalog, open_stores, clock, MASKS)

    async def block(self, **fields: Any) -> dict[str, Any]:
        return await self.blocking.block(BlockOrder.model_validate(fields), "token 1a2b")

    async def listed(self) -> list[dict[str, Any]]:
        """What is in force once the place was read again."""
        for _ in range(5):
            await self.watch.start()
        told = await self.blocking.list(100)
        assert told["problems"] == [] and told["count"] == len(told["blocks"])
        blocks: list[dict[str, Any]] = told["blocks"]
        return blocks


@pytest.fixture
async def service(kept: Kept) -> AsyncIterator[Service]:
    made = Service(kept)
    await made.watch.start()
    yield made
    await made.watch.close()


async def test_a_block_is_written_by_whom_it_was_asked(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "extauthz.inspection")
    told = await service.block(application="mobile", reason="leaked key", **{"for": "1h"})
    assert told["created"] and told["written_to"] == service.store.name and told["warnings"] == []
    assert told["fits"] == "application 'mobile' with 1 API key and 1 consumer key"
    (block,) = await service.listed()
    assert {name: block[name] for name in ("id", "kind", "application", "reason", "by", "at")} == {
        "id": told["id"],
        "kind": "block",
        "application": "mobile",
        "reason": "leaked key",
        "by": "token 1a2b",
        "at": "2023-11-14T22:13:20Z",
    }
    assert (block["until"], block["in_force"]) == ("2023-11-14T23:13:20Z", True)
    assert caplog.messages == [f"token 1a2b has written {told['id']} in {service.store.name}"]


async def test_the_same_block_again_is_the_same_block(service: Service) -> None:
    first = await service.block(application="mobile", reason="one")
    again = await service.block(application="mobile", reason="two")
    assert (first["created"], again["created"]) == (True, False)
    assert first["id"] == again["id"]
    assert [it["reason"] for it in await service.listed()] == ["two"]


async def test_unblocks_once_and_again(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    told = await service.block(user="alice")
    caplog.clear()
    caplog.set_level(logging.WARNING, "extauthz.inspection")
    gone = await service.blocking.unblock(told["id"], "token 1a2b")
    assert (gone["removed"], gone["taken_from"]) == (True, [service.store.name])
    assert await service.listed() == []
    again = await service.blocking.unblock(told["id"], "token 1a2b")
    assert (again["removed"], again["taken_from"]) == (False, [])
    assert caplog.messages == [f"token 1a2b has taken {told['id']} back from {service.store.name}"]


async def test_lists_and_takes_back_revocations_too(service: Service) -> None:
    revoked = a_revocation(jti="token-1", issuer="https://idp.example/", reason="stolen")
    await service.store.write(by_id(revoked))
    (listed,) = await service.listed()
    assert (listed["kind"], listed["jti"]) == ("revocation", MASKS.hash_text("token-1"))
    assert listed["reason"] == "stolen" and "token-1" not in str(listed)
    assert (await service.blocking.unblock(revoked.id, "x"))["removed"]


async def test_users_and_consumer_keys_are_masked(service: Service) -> None:
    await service.block(user="alice")
    await service.block(consumer_key="abc123")
    blocks = await service.listed()
    assert {it["user"] for it in blocks} == {"", MASKS.hash_text("alice")}
    assert {it["consumer_key"] for it in blocks} == {"", MASKS.hash_text("abc123")}
    assert "alice" not in str(blocks) and "abc123" not in str(blocks)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"application": "mobil"}, "did you mean 'mobile'"),
        ({"api": "HttpbinAPI", "version": "2"}, "version of API 'HttpbinAPI' '2' fits nothing"),
        ({"ip": "0.0.0.0/0"}, "ip 0.0.0.0/0 is every client"),
    ],
)
async def test_what_is_probably_a_mistake_needs_force(
    fields: dict[str, str], said: str, service: Service
) -> None:
    with pytest.raises(NotBlocked, match=said):
        await service.block(**fields)
    assert await service.listed() == []
    told = await service.block(**fields, force=True)
    assert said in told["warnings"][0] and len(await service.listed()) == 1


@pytest.mark.parametrize(
    ("fields", "hidden"), [({"consumer_key": "abc124"}, "abc123"), ({"user": "Alice"}, "alice")]
)
async def test_a_mistake_is_told_without_the_keys_and_users_of_the_catalog(
    fields: dict[str, str], hidden: str, service: Service
) -> None:
    with pytest.raises(NotBlocked) as refused:
        await service.block(**fields)
    assert hidden not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "has no condition and would refuse everything"),
        ({"version": "1"}, "version is of no API; add api"),
        ({"ip": "here"}, "ip: "),
    ],
)
async def test_a_bad_block_says_what_is_wrong(
    fields: dict[str, str], said: str, service: Service
) -> None:
    with pytest.raises(BadBlock, match=said):
        await service.block(**fields)
