"""Protobuf's wire format, and the parts of answers that are kept."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from extauthz.envoy.protobuf_fields import MAX_PART_BYTES, MAX_PARTS, WrittenParts, write_field


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_152])
def test_a_field_of_any_length_reads_back(size: int) -> None:
    written = write_field(b"\x0a", b"x" * size)

    assert BytesValue.FromString(written).value == b"x" * size
    if size:
        assert written == BytesValue(value=b"x" * size).SerializeToString()


def test_parts_are_kept_by_what_they_were_written_from() -> None:
    parts = WrittenParts()
    assert parts.keep(("a", None), b"1") == b"1"
    assert parts.keep(("a", ""), b"2") == b"2"

    assert parts.get(("a", None)) == b"1"
    assert parts.get(("a", "")) == b"2"
    assert parts.get(("a",)) is None


def test_a_long_part_is_not_kept() -> None:
    parts = WrittenParts()
    assert parts.keep(("a",), b"x" * MAX_PART_BYTES)
    assert parts.keep(("b",), b"x" * (MAX_PART_BYTES + 1))

    assert list(parts) == [("a",)]


def test_there_are_never_more_parts_than_agreed() -> None:
    parts = WrittenParts()
    for number in range(MAX_PARTS + 1):
        parts.keep((str(number),), b"x")
        assert len(parts) <= MAX_PARTS

    assert parts.get((str(MAX_PARTS),)) == b"x"
