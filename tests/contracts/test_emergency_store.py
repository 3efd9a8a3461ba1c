"""What every store of blocks and revocations does, files and each way to run Redis alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from extauthz.emergency.reading import EmergencyStore
from tests.emergency.stores import KEEPERS, Kept, a_block, a_revocation, by_id, look_again

WEB = a_block(application="web", reason="leaked key", until="2030-01-31T12:00:00.5Z")
NETWORK = a_block(ip="203.0.113.0/24", api="Pets", version="v1", id="flood")
TOKEN = a_revocation(jti="t-1", issuer="https://idp.example/")
CONSUMER = a_revocation(consumer_key="c-1", issued_before="2026-11-30T21:00:00Z")


@pytest.fixture(params=KEEPERS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with ExitStack() as stack:
        yield stack.enter_context(KEEPERS[request.param](tmp_path))


@pytest.fixture
async def stores(kept: Kept) -> AsyncIterator[tuple[EmergencyStore, EmergencyStore]]:
    """Of who writes, and of a replica that has looked once."""
    writer, replica = kept.open(), kept.open()
    first = await replica.look()
    assert first is not None and not first.entries and not first.problems
    yield writer, replica
    await writer.close()
    await replica.close()


Stores = tuple[EmergencyStore, EmergencyStore]


async def test_what_is_written_is_read_as_it_was(stores: Stores) -> None:
    writer, replica = stores
    await writer.write(by_id(WEB, NETWORK, TOKEN, CONSUMER))
    reading = await look_again(replica)
    assert reading.problems == ()
    assert {it.id: (it.section, it.document.conditions) for it in reading.entries.values()} == {
        it.id: (it.section, it.document.conditions) for it in (WEB, NETWORK, TOKEN, CONSUMER)
    }
    web = reading.entries[WEB.id]
    assert (web.document.reason, web.document.until) == ("leaked key", WEB.document.until)
    assert web.source == replica.name


async def test_nothing_is_told_while_nothing_changes(stores: Stores) -> None:
    writer, replica = stores
    await writer.write(by_id(WEB))
    await look_again(replica)
    assert await replica.look() is None


async def test_the_same_again_takes_the_place_of_the_first(stores: Stores) -> None:
    writer, replica = stores
    await writer.write(by_id(WEB, NETWORK))
    longer = a_block(application="web", reason="still")
    await writer.write(by_id(longer))
    reading = await look_again(replica)
    assert reading.entries.keys() == {WEB.id, NETWORK.id}
    assert reading.entries[WEB.id].document.reason == "still"
    assert reading.entries[WEB.id].document.until is None


async def test_what_is_taken_out_is_gone_the_last_one_too(stores: Stores) -> None:
    writer, replica = stores
    await writer.write(by_id(WEB, TOKEN))
    await look_again(replica)
    await writer.write({WEB.id: None})
    assert (await look_again(replica)).entries.keys() == {TOKEN.id}
    await writer.write({TOKEN.id: None})
    assert not (await look_again(replica)).entries


async def test_an_entry_that_is_wrong_is_told_and_loses_no_other(
    stores: Stores, kept: Kept
) -> None:
    writer, replica = stores
    await writer.write(by_id(WEB, NETWORK))
    kept.spoil("x")
    await writer.write(by_id(TOKEN))
    reading = await look_again(replica)
    assert reading.entries.keys() == {WEB.id, NETWORK.id, TOKEN.id}
    (problem,) = reading.problems
    assert "unknown key 'aplication'; did you mean 'application'?" in problem.message
    assert problem.file == replica.name
    assert problem.path
    # One that is wrong can be taken out by its id like any other.
    await writer.write({"x": None})
    assert (await look_again(replica)).problems == ()


async def test_what_an_entry_said_last_stays_while_it_is_wrong(stores: Stores, kept: Kept) -> None:
    writer, replica = stores
    await writer.write(by_id(a_block(id="x", application="web")))
    await look_again(replica)
    kept.spoil("x")
    await writer.write(by_id(TOKEN))
    reading = await look_again(replica)
    assert reading.entries["x"].document.conditions == {"application": "web"}
    assert reading.entries.keys() == {"x", TOKEN.id}
    assert len(reading.problems) == 1


async def test_what_is_lost_by_accident_stays_in_force(stores: Stores, kept: Kept) -> None:
    writer, replica = stores
    await writer.write(by_id(WEB, TOKEN))
    await look_again(replica)
    kept.lose()
    assert (await look_again(replica)).entries.keys() == {WEB.id, TOKEN.id}
