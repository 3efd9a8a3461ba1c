"""Only a Mixer that is known may ask."""

from __future__ import annotations

import grpc
import pytest

from extauthz.model.identity import Secret
from extauthz.serving.methods import Call, Metadata, RpcCode, RpcFailure
from mixer_compat.callers import CallerRules, check_caller
from tests.mixer_compat.asking import REPORTNOTHING, Asking, GivenCaller, served

TOKENS = CallerRules(tokens=(Secret("new-token"), Secret("old-token")))


@pytest.mark.parametrize(
    ("metadata", "passes"),
    [
        ((("authorization", "new-token"),), True),
        ((("authorization", "Bearer old-token"),), True),
        ((("authorization", "bearer old-token"),), True),
        ((("authorization", "Bearer other"),), False),
        ((("authorization", "Bearer new-token,old-token"),), False),
        ((("authorization", ""),), False),
        ((("authorization", "Bearer "),), False),
        ((("authorization", "new-token"), ("authorization", "new-token")), False),
        ((("authorization", b"new-token"),), False),
        ((("x-api-key", "new-token"),), False),
        ((), False),
    ],
)
def test_a_mixer_presents_a_token(
    metadata: tuple[tuple[str, str | bytes], ...], *, passes: bool
) -> None:
    assert passes_as(a_call(metadata), TOKENS) is passes


@pytest.mark.parametrize(
    ("value", "passes"), [("new-token", True), ("Bearer new-token", False), ("", False)]
)
def test_a_header_of_its_own_holds_the_token_as_it_is(value: str, *, passes: bool) -> None:
    rules = CallerRules(tokens=TOKENS.tokens, header="x-api-key")
    assert passes_as(a_call((("x-api-key", value),)), rules) is passes


def a_call(metadata: Metadata = ()) -> Call:
    return Call(caller=GivenCaller(metadata))


def passes_as(call: Call, rules: CallerRules) -> bool:
    try:
        check_caller(call, rules)
    except RpcFailure as failure:
        return failure.code is not RpcCode.UNAUTHENTICATED
    return True


@pytest.mark.parametrize(
    "path",
    [row.path for row in Asking().adapter.methods()],
)
async def test_no_method_answers_an_unknown_caller(path: str) -> None:
    asking = Asking(callers=TOKENS)
    with pytest.raises(RpcFailure) as refused:
        await asking.ask(path, b"")
    assert refused.value.code is RpcCode.UNAUTHENTICATED
    assert asking.adapter.reports.waiting == 0


async def test_a_token_stands_in_the_calls_metadata() -> None:
    async with (
        served(Asking(callers=TOKENS)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(REPORTNOTHING)
        assert await call(b"", metadata=(("authorization", "Bearer new-token"),)) == b""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=(("authorization", "Bearer guessed"),))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
