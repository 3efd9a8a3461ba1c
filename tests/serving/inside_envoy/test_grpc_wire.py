"""Frames, time-outs, metadata and statuses: what is read, what is refused, and with which code."""

from __future__ import annotations

import base64
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.serving.inside_envoy.grpc_wire import (
    FrameReader,
    is_grpc,
    read_metadata,
    read_timeout_s,
    write_frame,
    write_status,
)
from extauthz.serving.methods import RpcCode, RpcFailure

MAX_BYTES = 100
REFUSALS = {RpcCode.INTERNAL, RpcCode.UNIMPLEMENTED, RpcCode.RESOURCE_EXHAUSTED}


def read_all(chunks: list[bytes]) -> list[bytes]:
    frames = FrameReader(MAX_BYTES)
    messages = []
    for chunk in chunks:
        frames.feed(chunk)
        while (message := frames.find_message()) is not None:
            messages.append(message)
    frames.check_end()
    return messages


@given(messages=st.lists(st.binary(max_size=MAX_BYTES), max_size=5), data=st.data())
def test_messages_come_back_however_they_are_split(
    messages: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(map(write_frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert read_all(chunks) == messages


@pytest.mark.parametrize("at", range(len(write_frame(b"hello")) + 1))
def test_a_frame_may_be_split_at_every_byte(at: int) -> None:
    wire = write_frame(b"hello")
    assert read_all([wire[:at], wire[at:]]) == [b"hello"]


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.binary(max_size=9).map(write_frame)), max_size=5)
)
def test_garbage_is_read_or_refused_and_never_more_is_held_than_arrived(
    chunks: list[bytes],
) -> None:
    wire = b"".join(chunks)
    if wire == b"".join(map(write_frame, read_leniently(wire))):
        assert b"".join(map(write_frame, read_all(chunks))) == wire
    else:
        with pytest.raises(RpcFailure) as caught:
            read_all(chunks)
        assert caught.value.code in REFUSALS


def read_leniently(wire: bytes) -> list[bytes]:
    """The whole messages at the start, by the plainest means."""
    messages = []
    while len(wire) >= 5 and wire[0] == 0 and int.from_bytes(wire[1:5], "big") <= MAX_BYTES:
        end = 5 + int.from_bytes(wire[1:5], "big")
        if end > len(wire):
            break
        messages.append(wire[5:end])
        wire = wire[end:]
    return messages


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\1\0\0\0\0", RpcCode.UNIMPLEMENTED),
        (b"\2\0\0\0\0", RpcCode.INTERNAL),
        (b"\xff\0\0\0\0", RpcCode.INTERNAL),
        (b"\0\0\0\0\x65", RpcCode.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", RpcCode.RESOURCE_EXHAUSTED),
        (b"\0", RpcCode.INTERNAL),
        (b"\0\0\0\0\5hell", RpcCode.INTERNAL),
    ],
)
def test_refuses_what_is_no_message(wire: bytes, code: RpcCode) -> None:
    with pytest.raises(RpcFailure) as caught:
        read_all([wire])
    assert caught.value.code is code


def test_takes_a_message_of_the_greatest_size() -> None:
    assert read_all([write_frame(b"x" * MAX_BYTES)]) == [b"x" * MAX_BYTES]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"2H", 7200),
        (b"3M", 180),
        (b"10S", 10),
        (b"200m", 0.2),
        (b"7u", 0.000007),
        (b"5n", 0.000000005),
        (b"0S", 0),
        (b"99999999H", 99999999 * 3600),
    ],
)
def test_reads_every_unit_of_a_timeout(value: bytes, seconds: float) -> None:
    assert read_timeout_s(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [b"", b"S", b"5", b"5s", b"-1S", b"+1S", b"1.5S", b"123456789S", b"1 S", b"1S ", b"1SS"],
)
def test_refuses_a_timeout_that_is_none(value: bytes) -> None:
    with pytest.raises(RpcFailure) as caught:
        read_timeout_s(value)
    assert caught.value.code is RpcCode.INTERNAL


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"Application/gRPC; charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_knows_grpcs_content_types(content_type: bytes, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    assert is_grpc(content_type) is expected


def test_metadata_keeps_order_and_duplicates_and_leaves_out_the_protocols_own() -> None:
    headers = [
        (b"te", b"trailers"),
        (b"x-a", b"1"),
        (b"content-type", b"application/grpc"),
        (b"x-b-bin", b"AP8"),
        (b"grpc-timeout", b"1S"),
        (b"x-a", b"\xe4"),
        (b"x-b-bin", b"AP8=, YQ"),
    ]
    assert read_metadata(headers) == (
        ("x-a", "1"),
        ("x-b-bin", b"\x00\xff"),
        ("x-a", "\xe4"),
        ("x-b-bin", b"\x00\xff"),
        ("x-b-bin", b"a"),
    )


@given(st.binary())
def test_binary_metadata_is_read_with_and_without_padding(value: bytes) -> None:
    padded = base64.b64encode(value)
    for text in (padded, padded.rstrip(b"=")):
        assert read_metadata([(b"x-bin", text)]) == (("x-bin", value),)


@pytest.mark.parametrize("value", [b"a", b"****", b"AP8-"])
def test_refuses_binary_metadata_that_is_no_base64(value: bytes) -> None:
    with pytest.raises(RpcFailure) as caught:
        read_metadata([(b"x-bin", value)])
    assert caught.value.code is RpcCode.INTERNAL


@given(st.text())
def test_a_statuss_message_travels_as_printable_ascii_and_comes_back(message: str) -> None:
    trailers = dict(write_status(RpcCode.NOT_FOUND, message))
    assert trailers[b"grpc-status"] == b"5"
    text = trailers.get(b"grpc-message", b"").decode("ascii")
    assert all(" " <= character <= "~" for character in text)
    assert unquote(text, errors="surrogatepass") == message
