"""What two processes say to each other: answers of bytes, also where nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

import pytest

from extauthz.serving.workers.control import CONTROL_FD, Control, ControlEnded, HostFailed, Steered

LARGE = b'{"a":\n' * 300_000
PATIENCE_S = 30


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    control = Control()
    await control.start()
    yield control
    control.close()


async def test_an_answer_may_be_bytes_of_any_length(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONTROL_FD, str(os.dup(control.descriptor)))
    steered = await Steered.connect()

    async def answer(of: object) -> object:
        return {"large": LARGE, "empty": b"", "text": "text"}[str(of)]

    obeying = asyncio.create_task(steered.obey({}, {"give": answer}))
    for of, expected in (("large", LARGE), ("empty", b""), ("text", "text"), ("large", LARGE)):
        assert await control.ask("give", of, within_s=PATIENCE_S) == expected
    control.leave_to_started()
    control.close()
    await obeying
    steered.close()


async def test_whoever_gave_up_between_a_line_and_its_bytes_reads_on_with_them(
    control: Control,
) -> None:
    _, theirs = await asyncio.open_connection(sock=control._theirs.dup())
    theirs.write(b'{"id": 1, "bytes": 6}\nabc')
    with pytest.raises(HostFailed, match="within"):
        await control.ask("first", within_s=0.05)
    theirs.write(b"def" + json.dumps({"id": 2, "answer": "second"}).encode() + b"\n")
    assert await control.ask("second", within_s=PATIENCE_S) == "second"
    theirs.close()


async def test_bytes_that_end_early_are_the_end(control: Control) -> None:
    _, theirs = await asyncio.open_connection(sock=control._theirs.dup())
    theirs.write(b'{"id": 1, "bytes": 6}\nabc')
    theirs.close()
    control.leave_to_started()
    with pytest.raises(ControlEnded):
        await control.ask("first", within_s=PATIENCE_S)


async def test_a_question_that_takes_long_delays_no_other(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONTROL_FD, str(os.dup(control.descriptor)))
    steered = await Steered.connect()
    may_end = asyncio.Event()

    async def wait(_of: object) -> str:
        await may_end.wait()
        return "late"

    async def give(_of: object) -> bytes:
        return LARGE

    obeying = asyncio.create_task(steered.obey({}, {"wait": wait, "give": give}))
    late = asyncio.create_task(control.ask("wait", within_s=PATIENCE_S))
    for _ in range(3):
        assert await control.ask("give", within_s=PATIENCE_S) == LARGE
    assert not late.done()
    may_end.set()
    assert await late == "late"
    control.leave_to_started()
    control.close()
    await obeying
    steered.close()


async def test_everybody_who_waits_hears_of_the_end_and_nobody_waits_after_it(
    control: Control,
) -> None:
    asked = [asyncio.create_task(control.ask("first", within_s=PATIENCE_S)) for _ in range(3)]
    await asyncio.sleep(0)
    control._theirs.close()
    for each in asked:
        with pytest.raises(ControlEnded):
            await each
    with pytest.raises(ControlEnded):
        await control.ask("later", within_s=PATIENCE_S)
