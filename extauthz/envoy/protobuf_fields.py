"""Writes protobuf's wire format (protobuf.dev/programming-guides/encoding), as far as is needed.

And `WrittenParts`, which remembers what was written.
"""

from __future__ import annotations

from typing import Final

MAX_PART_BYTES: Final = 1024
MAX_PARTS: Final = 4096


def write_field(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field. `tag` is field number * 8 + 2."""
    size = len(payload)
    if size < 128:
        return b"%b%c%b" % (tag, size, payload)
    if size < 16_384:
        return b"%b%c%c%b" % (tag, size & 127 | 128, size >> 7, payload)
    return tag + write_varint(size) + payload


def write_varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first; not negative."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


class WrittenParts(dict[tuple[str | None, ...], bytes]):
    """Parts of messages, each under all that it was written from.

    Bounded: at most MAX_PARTS of MAX_PART_BYTES, some 6 MB with their keys. When it is full, all
    are written anew: a part costs some 10 µs.
    """

    __slots__ = ()

    def keep(self, key: tuple[str | None, ...], part: bytes) -> bytes:
        """The part, which is remembered unless it is long."""
        if len(part) <= MAX_PART_BYTES:
            if len(self) >= MAX_PARTS:
                self.clear()
            self[key] = part
        return part
