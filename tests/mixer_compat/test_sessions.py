"""The infrastructure backend, as Mixer's bypass adapter calls it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from extauthz.serving.methods import Call
from mixer_compat.proto.model_pb2 import (
    CloseSessionRequest,
    CloseSessionResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    ValidateRequest,
    ValidateResponse,
)
from mixer_compat.proto.params_pb2 import Params
from mixer_compat.sessions import MAX_SESSIONS, Sessions
from tests.mixer_compat.asking import BACKEND, WSO2_PARAMS, Asking, a_config

GOOD = [None, Params(), WSO2_PARAMS]
BAD = Params(compat="nothing")


@pytest.mark.parametrize("params", GOOD)
async def test_good_parameters_are_valid(params: Message | None) -> None:
    asked = ValidateRequest(adapter_config=a_config(params))
    answer = ValidateResponse.FromString(await Asking().ask(f"{BACKEND}/Validate", asked))
    assert answer.HasField("status") and answer.status.code == 0


async def test_bad_parameters_are_refused_with_a_reason() -> None:
    asking = Asking()
    asked = ValidateRequest(adapter_config=a_config(BAD))
    answer = ValidateResponse.FromString(await asking.ask(f"{BACKEND}/Validate", asked))
    assert answer.status.code == 3
    assert "'wso2-adapter'" in answer.status.message
    create = CreateSessionRequest(adapter_config=a_config(BAD))
    created = CreateSessionResponse.FromString(await asking.ask(f"{BACKEND}/CreateSession", create))
    assert (created.status.code, created.session_id) == (3, "")


async def test_a_session_is_opened_and_closed() -> None:
    asking = Asking()
    names = set()
    for _ in range(2):
        data = await asking.ask(f"{BACKEND}/CreateSession", CreateSessionRequest())
        created = CreateSessionResponse.FromString(data)
        assert created.HasField("status") and created.status.code == 0
        names.add(created.session_id)
    assert len(names) == 2
    for name in (*names, "SESS-7"):
        close = CloseSessionRequest(session_id=name)
        data = await asking.ask(f"{BACKEND}/CloseSession", close)
        closed = CloseSessionResponse.FromString(data)
        assert closed.HasField("status") and closed.status.code == 0


async def test_sessions_are_bounded() -> None:
    asking = Asking()
    sessions = Sessions(asking.door)
    (create,) = [row for row in sessions.methods() if row.path.endswith("/CreateSession")]
    for _ in range(MAX_SESSIONS + 10):
        await create.handle(b"", Call())
    assert len(sessions) == MAX_SESSIONS


@pytest.mark.parametrize("name", ["Validate", "CreateSession", "CloseSession"])
async def test_bytes_that_are_no_message_have_a_status(name: str) -> None:
    data = await Asking().ask(f"{BACKEND}/{name}", b"\xff")
    kinds: dict[str, Any] = {
        "Validate": ValidateResponse,
        "CreateSession": CreateSessionResponse,
        "CloseSession": CloseSessionResponse,
    }
    assert kinds[name].FromString(data).status.code == 3
