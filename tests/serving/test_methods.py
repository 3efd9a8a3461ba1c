from __future__ import annotations

from collections.abc import Mapping

import grpc
import pytest

from extauthz.serving.methods import (
    Call,
    Metadata,
    MethodTable,
    RpcCode,
    RpcFailure,
    TextNames,
    UnaryMethod,
)


class Sender:
    """A caller that sent something along."""

    def read_metadata(self) -> Metadata:
        return ("x-name", "first"), ("x-name", "second")

    def read_texts(self, names: TextNames) -> Mapping[str, str]:
        return {}

    def read_peer(self) -> str:
        return "unix:"


async def echo(request: bytes, _: Call) -> bytes:
    return request


def a_method(path: str = "/a.Service/Do") -> UnaryMethod[bytes, bytes]:
    return UnaryMethod(path=path, decode=bytes, handle=echo, encode=bytes)


def test_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in RpcCode} == {
        code.name: code.value[0] for code in grpc.StatusCode
    }


def test_finds_methods_by_path() -> None:
    one, two = a_method("/a.Service/One"), a_method("/a.Service/Two")
    table = MethodTable([one, two])
    assert table.find("/a.Service/Two") is two
    assert table.find("/a.Service/Three") is None
    assert list(table) == [one, two] and len(table) == 2


def test_refuses_two_methods_under_one_path() -> None:
    with pytest.raises(ValueError, match=r"/a\.Service/Do"):
        MethodTable([a_method(), a_method()])


@pytest.mark.parametrize(
    "path", ["", "/", "a.Service/Do", "/a.Service", "/a/b/c", "/a.Service/Do "]
)
def test_refuses_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="not a method path"):
        a_method(path)


def test_a_failure_cannot_be_ok() -> None:
    with pytest.raises(ValueError, match="OK is not a failure"):
        RpcFailure(RpcCode.OK, "fine")


def test_a_method_fails_as_unavailable_unless_told_otherwise() -> None:
    assert a_method().failure_code is RpcCode.UNAVAILABLE


def test_finds_metadata_in_any_case() -> None:
    call = Call(caller=Sender())
    assert call.find_metadata("X-Name") == "first"
    assert call.find_metadata("x-other") is None
    assert call.peer == "unix:"


def test_a_call_through_no_host_has_nobody_behind_it() -> None:
    assert Call().metadata == () and Call().peer == ""
