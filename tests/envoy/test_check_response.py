"""Another codec reads back what is written, and nothing unchecked is."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
)
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse
from envoy_data_plane.google.protobuf import Struct
from google.protobuf.struct_pb2 import Struct as GoogleStruct
from hypothesis import given
from hypothesis import strategies as st

from extauthz.answers.sendable import MAX_VALUE_BYTES, AnswerError
from extauthz.envoy.check_response import (
    MAX_BODY_BYTES,
    MAX_METADATA_CHARACTERS,
    MAX_METADATA_ITEMS,
    write_allow,
    write_deny,
    write_entry,
    write_error,
    write_metadata,
    write_number,
    write_short_text,
)
from extauthz.envoy.proto import ext_authz_pb2

# The field is deprecated, but all that Envoy up to 1.36 reads.
pytestmark = pytest.mark.filterwarnings("ignore:HeaderValueOption.append is deprecated")

OVERWRITE = (False, HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD)
BESIDE = (None, HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD)

LONG = "v" * 300


def fields_of(options: Sequence[HeaderValueOption]) -> list[tuple[str, str]]:
    assert all(option.header is not None for option in options)
    return [(option.header.key, option.header.value) for option in options if option.header]


def modes_of(options: Sequence[HeaderValueOption]) -> list[tuple[bool | None, Any]]:
    return [(option.append, option.append_action) for option in options]


def test_another_codec_reads_every_field_of_an_allow() -> None:
    answer = CheckResponse.parse(
        write_allow(
            set_headers=[("x-user", "alice"), (":path", "/other?a=b"), ("x-long", LONG)],
            remove_headers=["authorization", "x-api-key"],
            response_headers=[("ratelimit", '"m";r=3'), ("set-cookie", "a=1")],
            metadata=write_metadata({"tier": "Gold", "remaining": 7}),
        )
    )
    assert answer.status is not None and answer.status.code == 0
    allowed = answer.ok_response
    assert allowed is not None
    assert fields_of(allowed.headers) == [
        ("x-user", "alice"),
        (":path", "/other?a=b"),
        ("x-long", LONG),
    ]
    assert modes_of(allowed.headers) == [OVERWRITE] * 3
    assert allowed.headers_to_remove == ["authorization", "x-api-key"]
    assert fields_of(allowed.response_headers_to_add) == [
        ("ratelimit", '"m";r=3'),
        ("set-cookie", "a=1"),
    ]
    assert modes_of(allowed.response_headers_to_add) == [OVERWRITE, BESIDE]
    assert answer.dynamic_metadata is not None
    assert answer.dynamic_metadata.to_dict() == {"tier": "Gold", "remaining": 7}


@pytest.mark.parametrize(
    ("write", "field"), [(write_deny, "denied_response"), (write_error, "error_response")]
)
def test_another_codec_reads_every_field_of_a_refusal(
    write: Callable[..., bytes], field: str
) -> None:
    data = write(
        http_status=429,
        rpc_code=8,
        headers=[("Retry-After", "7"), ("www-authenticate", "a"), ("www-authenticate", "b")],
        body="zu schnell: ö",
        metadata=write_metadata({"reason": "rate_limited"}),
    )
    answer = CheckResponse.parse(data)
    assert answer.status is not None and answer.status.code == 8
    denied = getattr(answer, field)
    assert denied.status.code == 429
    assert fields_of(denied.headers) == [
        ("retry-after", "7"),
        ("www-authenticate", "a"),
        ("www-authenticate", "b"),
    ]
    assert modes_of(denied.headers) == [OVERWRITE, OVERWRITE, BESIDE]
    assert denied.body == "zu schnell: ö"
    assert answer.dynamic_metadata == Struct.from_dict({"reason": "rate_limited"})
    assert ext_authz_pb2.CheckResponse.FromString(data).WhichOneof("http_response") == field


def test_our_messages_and_the_other_codecs_give_the_same_bytes() -> None:
    data = write_allow(
        set_headers=[("x-user", "alice")],
        remove_headers=["authorization"],
        response_headers=[("set-cookie", "a=1"), ("ratelimit", "x")],
        metadata=write_metadata({"a": "b"}),
    )
    assert bytes(CheckResponse.parse(data)) == data
    assert ext_authz_pb2.CheckResponse.FromString(data).SerializeToString() == data


def test_our_proto_file_has_the_fields_of_the_other_codec() -> None:
    ours = ext_authz_pb2.CheckResponse(
        status=ext_authz_pb2.Status(code=0, message="m"),
        ok_response=ext_authz_pb2.OkHttpResponse(
            query_parameters_to_set=[ext_authz_pb2.QueryParameter(key="k", value="v")],
            headers=[
                ext_authz_pb2.HeaderValueOption(
                    header=ext_authz_pb2.HeaderValue(key="x", raw_value=b"\xff")
                )
            ],
        ),
        dynamic_metadata=write_metadata({"a": 1}),
    )
    theirs = CheckResponse.parse(ours.SerializeToString())
    assert theirs.status is not None and theirs.status.message == "m"
    allowed = theirs.ok_response
    assert allowed is not None
    (parameter,) = allowed.query_parameters_to_set
    assert (parameter.key, parameter.value) == ("k", "v")
    header = allowed.headers[0].header
    assert header is not None and header.raw_value == b"\xff"
    assert theirs.dynamic_metadata == Struct.from_dict({"a": 1})


def read_allow(**changes: Any) -> ext_authz_pb2.OkHttpResponse:
    return ext_authz_pb2.CheckResponse.FromString(write_allow(**changes)).ok_response


def test_an_allow_without_changes_is_an_allow() -> None:
    answer = ext_authz_pb2.CheckResponse.FromString(write_allow())
    assert answer.HasField("status") and answer.status.code == 0
    assert answer.HasField("ok_response")


def test_a_header_that_is_set_is_not_removed() -> None:
    # Envoy removes after it adds, so that the name would vanish.
    allowed = read_allow(set_headers=[("X-User", "alice")], remove_headers=["x-user", "X-Key"])
    assert [option.header.key for option in allowed.headers] == ["x-user"]
    assert list(allowed.headers_to_remove) == ["x-key"]


def test_an_empty_identity_removes_the_clients() -> None:
    allowed = read_allow(set_headers=[("x-user", "")])
    assert not allowed.headers
    assert list(allowed.headers_to_remove) == ["x-user"]


BAD_NAMES = [
    "",
    "x user",
    "x:user",
    "x-user\r\nx-admin",
    "x\0",
    "ü",
    ":authority",
    ":method",
    "(x)",
]
BAD_VALUES = [
    "a\r\nx-admin: true",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "\ud800",
    " alice",
    "alice ",
    "alice\xa0",
    "\talice",
    "v" * (MAX_VALUE_BYTES + 1),
    "ö" * (MAX_VALUE_BYTES // 2 + 1),
]
FRAMING = ["Host", "content-length", "Transfer-Encoding", "connection"]


@pytest.mark.parametrize("name", [*BAD_NAMES, *FRAMING])
@pytest.mark.parametrize("place", ["set_headers", "response_headers"])
def test_an_allow_with_a_bad_header_name_raises(place: str, name: str) -> None:
    with pytest.raises(AnswerError):
        write_allow(**{place: [(name, "v")]})  # type: ignore[arg-type]  # one table, two places


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("place", ["set_headers", "response_headers"])
def test_an_allow_with_a_bad_value_raises_and_does_not_repeat_it(place: str, value: str) -> None:
    with pytest.raises(AnswerError) as raised:
        write_allow(**{place: [("x-user", value)]})  # type: ignore[arg-type]
    assert "x-user" in str(raised.value)
    assert value not in str(raised.value)
    assert raised.value.code == "answer_invalid"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_allow_with_a_bad_name_to_remove_raises(name: str) -> None:
    with pytest.raises(AnswerError):
        write_allow(remove_headers=[name])


@pytest.mark.parametrize("path", ["other", "/a b", "/a\r\n", "/ö", "*"])
def test_an_allow_with_a_bad_path_raises(path: str) -> None:
    with pytest.raises(AnswerError):
        write_allow(set_headers=[(":path", path)])


def test_the_path_is_no_response_header() -> None:
    with pytest.raises(AnswerError):
        write_allow(response_headers=[(":path", "/a")])


@pytest.mark.parametrize("value", ["Jörg Müller", "a\tb", "日本", "v" * MAX_VALUE_BYTES, "a,b;c=d"])
def test_writes_every_value_that_is_legal(value: str) -> None:
    allowed = read_allow(set_headers=[("x-user", value)])
    assert [option.header.value for option in allowed.headers] == [value]


@given(st.text(), st.text())
def test_no_header_ever_holds_a_control_character(name: str, value: str) -> None:
    try:
        allowed = read_allow(set_headers=[(name, value)], response_headers=[(name, value)])
    except AnswerError:
        return
    for option in [*allowed.headers, *allowed.response_headers_to_add]:
        written = f"{option.header.key}{option.header.value}"
        assert not any(ord(mark) < 32 and mark != "\t" for mark in written)
        assert "\x7f" not in written


@given(
    st.integers(),
    st.integers(),
    st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))),
    st.text(st.characters()),
)
def test_a_denial_always_goes_out_and_always_denies(
    http_status: int, rpc_code: int, headers: list[tuple[str, str]], body: str
) -> None:
    data = write_deny(http_status=http_status, rpc_code=rpc_code, headers=headers, body=body)
    answer = ext_authz_pb2.CheckResponse.FromString(data)
    assert 0 < answer.status.code <= 16
    assert 300 <= answer.denied_response.status.code <= 599


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_denial_leaves_out_headers_that_cannot_be_written(value: str) -> None:
    data = write_deny(
        http_status=401, rpc_code=16, headers=[("www-authenticate", value), ("x-ok", "1")]
    )
    denied = ext_authz_pb2.CheckResponse.FromString(data).denied_response
    assert [(option.header.key, option.header.value) for option in denied.headers] == [
        ("x-ok", "1")
    ]


@pytest.mark.parametrize("body", ["x" * 10_000, "ö" * 10_000, "x" + "日" * 10_000])
def test_a_long_body_is_cut_between_characters(body: str) -> None:
    data = write_deny(http_status=403, rpc_code=7, body=body)
    written = ext_authz_pb2.CheckResponse.FromString(data).denied_response.body
    assert body.startswith(written)
    assert MAX_BODY_BYTES - 3 < len(written.encode()) <= MAX_BODY_BYTES


def test_a_body_that_is_no_text_is_still_sent() -> None:
    data = write_deny(http_status=403, rpc_code=7, body="a\ud800b")
    assert ext_authz_pb2.CheckResponse.FromString(data).denied_response.body == "a?b"


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), VALUES | st.lists(VALUES, max_size=60)
    )
)
def test_metadata_reads_back_as_it_was(fields: dict[str, Any]) -> None:
    written = GoogleStruct.FromString(write_metadata(fields))
    expected = GoogleStruct()
    expected.update(fields)
    assert written == expected


@given(st.text(max_size=70), st.text(max_size=70) | st.text("0123456789abcdef-", max_size=70))
def test_short_text_is_written_as_any_entry(name: str, text: str) -> None:
    assert write_short_text(name, text) == write_entry(name, text)


@given(
    st.text(max_size=300),
    st.integers(-(2**1023), 2**1023) | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_number_is_written_as_any_entry(name: str, number: float) -> None:
    assert write_number(name, number) == write_entry(name, number)


def test_metadata_tells_one_from_true() -> None:
    read = GoogleStruct.FromString(write_metadata({"a": True}))
    assert read.fields["a"].bool_value is True
    read = GoogleStruct.FromString(write_metadata({"a": 1}))
    assert read.fields["a"].number_value == 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_metadata_has_no_number_that_json_cannot_say(number: float) -> None:
    read = GoogleStruct.FromString(write_metadata({"a": number}))
    assert read.fields["a"].WhichOneof("kind") == "null_value"


def test_metadata_is_bounded_and_is_text() -> None:
    read = GoogleStruct.FromString(
        write_metadata({"a": "x" * 5000, "b": "\ud800", "c": [1] * 1000, "\ud800": 1})
    )
    assert read.fields["a"].string_value == "x" * MAX_METADATA_CHARACTERS
    assert read.fields["b"].string_value == "?"
    assert len(read.fields["c"].list_value.values) == MAX_METADATA_ITEMS
    assert read.fields["?"].number_value == 1


def test_the_largest_float_is_written() -> None:
    read = GoogleStruct.FromString(write_metadata({"a": sys.float_info.max}))
    assert read.fields["a"].number_value == sys.float_info.max
