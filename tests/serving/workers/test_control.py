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
