"""How Mixer writes an instance and a handler's params: by the descriptors that it was given.

Nothing here knows our generated code. Messages are found by name in the template's file
descriptor set, values come from expressions, and the bytes are as odd as Mixer's: lengths take
two bytes even where one would do, and maps come in no particular order (here: backwards).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.protobuf.message import DecodeError

from tests.mixer_compat.standin.expressions import (
    Bag,
    Expression,
    ExpressionError,
    compile_expression,
)

TEMPLATE_VARIETY: Final = 72295727
TEMPLATE_NAME: Final = 72295888
VALUE: Final = ".istio.policy.v1beta1.Value"
IP_ADDRESS: Final = ".istio.policy.v1beta1.IPAddress"
TIME_STAMP: Final = ".istio.policy.v1beta1.TimeStamp"

_Type = FieldDescriptorProto.Type
_SCALARS: Final = {
    FieldDescriptorProto.TYPE_STRING: "STRING",
    FieldDescriptorProto.TYPE_INT64: "INT64",
    FieldDescriptorProto.TYPE_INT32: "INT64",
    FieldDescriptorProto.TYPE_BOOL: "BOOL",
    FieldDescriptorProto.TYPE_DOUBLE: "DOUBLE",
}
_VALUE_FIELDS: Final = {
    "STRING": 1, "INT64": 2, "BOOL": 4, "IP_ADDRESS": 5, "TIMESTAMP": 6, "DURATION": 7,
    "EMAIL_ADDRESS": 8, "DNS_NAME": 9, "URI": 10,
}  # fmt: skip

Encoder = Callable[[Bag], bytes]


class DescriptorError(Exception):
    """What Mixer says about a descriptor, a message or a value that it cannot use."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """A file descriptor set, looked into by name."""

    files: tuple[FileDescriptorProto, ...]
    messages: Mapping[str, DescriptorProto]

    def message(self, name: str) -> DescriptorProto:
        """By its full name with a dot in front."""
        if name not in self.messages:
            raise DescriptorError(f"unable to resolve message '{name}'")
        return self.messages[name]

    def service(self) -> tuple[str, ServiceDescriptorProto]:
        """The package and the first service whose name begins with Handle."""
        for file in self.files:
            for service in file.service:
                if service.name.startswith("Handle"):
                    return file.package, service
        raise DescriptorError("no service whose name begins with Handle")


def read_descriptors(text: str) -> Descriptors:
    """Raises DescriptorError when it is no base64 of a file descriptor set."""
    try:
        found = FileDescriptorSet.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, DecodeError) as error:
        raise DescriptorError(f"unable to parse descriptor: {error}") from error
    messages: dict[str, DescriptorProto] = {}
    for file in found.file:
        for message in file.message_type:
            messages |= _with_nested(f".{file.package}", message)
    return Descriptors(tuple(found.file), messages)


def _with_nested(prefix: str, message: DescriptorProto) -> dict[str, DescriptorProto]:
    name = f"{prefix}.{message.name}"
    found = {name: message}
    for nested in message.nested_type:
        found |= _with_nested(name, nested)
    return found


def read_options(file: FileDescriptorProto) -> dict[int, int | bytes]:
    """The options of a file by number, unknown ones too: Mixer knows template_variety itself."""
    return dict(_fields(file.options.SerializeToString()))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            length = varint()
            yield tag >> 3, data[at : at + length]
            at += length


def write_varint(value: int) -> bytes:
    """A minimal varint; negative values take ten bytes."""
    value &= (1 << 64) - 1
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def write_field(number: int, data: bytes) -> bytes:
    """A field of bytes, whose length takes at least two bytes as in Mixer."""
    length = bytes([len(data) | 0x80, 0]) if len(data) < 0x80 else write_varint(len(data))
    return write_varint(number << 3 | 2) + length + data


def _write_int(number: int, value: int) -> bytes:
    return write_varint(number << 3) + write_varint(value)


def build_instance(
    descriptors: Descriptors,
    message: str,
    params: Mapping[str, Any],
    vocabulary: Mapping[str, str],
) -> Encoder:
    """Checks params against the message and gives what writes it (dynamic/builder.go).

    Raises:
        DescriptorError, ExpressionError: the params do not fit, or an expression is none.
    """
    found = descriptors.message(message)
    parts: list[tuple[int, Encoder]] = []
    for name, value in sorted(params.items()):
        field = _find_field(found, name)
        if field is None:
            raise DescriptorError(f"fieldEncoder '{name}' not found in message '{found.name}'")
        parts.append((field.number, _build_field(descriptors, field, value, vocabulary)))
    parts.sort(key=lambda part: part[0])
    return lambda bag: b"".join(encode(bag) for _, encode in parts)


def _find_field(message: DescriptorProto, name: str) -> FieldDescriptorProto | None:
    for field in message.field:
        assert field.HasField("json_name"), "an early Mixer reads it without a look"
        if name in (field.json_name, field.name):
            return field
    return None


def _build_field(
    descriptors: Descriptors,
    field: FieldDescriptorProto,
    value: Any,
    vocabulary: Mapping[str, str],
) -> Encoder:
    number = field.number
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        if field.type_name == VALUE:
            descriptors.message(VALUE)
            inner = _build_value(value, vocabulary)
        elif field.type_name in (IP_ADDRESS, TIME_STAMP):
            wanted = "IP_ADDRESS" if field.type_name == IP_ADDRESS else "TIMESTAMP"
            expression = _compile(value, vocabulary, wanted, field)
            inner = lambda bag: _write_value(wanted, expression.value(bag))  # noqa: E731
        else:
            nested = descriptors.message(field.type_name)
            if nested.options.map_entry:
                return _build_map(descriptors, field, value, vocabulary)
            if not isinstance(value, Mapping):
                raise DescriptorError(f"unable to process: {field.name}, got {type(value)}")
            inner = build_instance(descriptors, field.type_name, value, vocabulary)
        return lambda bag: write_field(number, inner(bag))
    wanted = _SCALARS[field.type]
    literal = _read_literal(value)
    if literal is None:
        expression = _compile(value, vocabulary, wanted, field)
        return lambda bag: _write_scalar(number, expression.value(bag))
    if not isinstance(
        literal, {"STRING": str, "INT64": int, "BOOL": bool, "DOUBLE": float}[wanted]
    ):
        raise DescriptorError(f"encoder string for type {wanted} does not accept {literal!r}")
    return lambda _: _write_scalar(number, literal)


def _compile(
    value: Any, vocabulary: Mapping[str, str], wanted: str, field: FieldDescriptorProto
) -> Expression:
    expression = compile_expression(str(value), vocabulary)
    if expression.type != wanted:
        kind = _Type.Name(field.type)
        message = f"encoder {field.name} for type {kind} does not accept {expression.type}"
        raise ExpressionError(message)
    return expression


def _read_literal(value: Any) -> Any:
    """A number, or a text in quotes, which are taken off and no more; None for an expression.

    Whatever begins and ends with a quote is such a text, also `"a" | "b"`.
    """
    if not isinstance(value, str):
        return value
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return None


def _build_value(value: Any, vocabulary: Mapping[str, str]) -> Encoder:
    literal = _read_literal(value)
    if isinstance(literal, str):
        return lambda _: _write_value("STRING", literal)
    if literal is not None:
        raise DescriptorError(f"the manifests have texts only, not {literal!r}")
    expression = compile_expression(value, vocabulary)
    if expression.type not in _VALUE_FIELDS:
        raise ExpressionError(f"unsupported type: {expression.type} ({VALUE})")
    return lambda bag: _write_value(expression.type, expression.value(bag), in_value=True)


def _build_map(
    descriptors: Descriptors,
    field: FieldDescriptorProto,
    value: Any,
    vocabulary: Mapping[str, str],
) -> Encoder:
    if not isinstance(value, Mapping):
        raise DescriptorError(f"incorrect map type: {type(value)}")
    entry = descriptors.message(field.type_name)
    held = next(each for each in entry.field if each.name == "value")
    entries = [
        (_write_scalar(1, str(key)), _build_field(descriptors, held, each, vocabulary))
        for key, each in reversed(list(value.items()))
    ]
    return lambda bag: b"".join(
        write_field(field.number, key + encode(bag)) for key, encode in entries
    )


def _write_scalar(number: int, value: Any) -> bytes:
    if isinstance(value, str):
        return write_field(number, value.encode())
    return _write_int(number, int(value))


def _write_value(kind: str, value: Any, *, in_value: bool = False) -> bytes:
    """A Value; or, without `in_value`, the message that stands in one (or a text's Value)."""
    if kind == "STRING":
        return write_field(1, value.encode())
    if kind in ("INT64", "BOOL"):
        return _write_int(_VALUE_FIELDS[kind], int(value))
    if kind == "IP_ADDRESS":
        inner = write_field(1, value)
    elif kind == "TIMESTAMP":
        inner = write_field(1, _write_moment(value - datetime.fromtimestamp(0, UTC)))
    elif kind == "DURATION":
        inner = write_field(1, _write_moment(value))
    else:
        inner = write_field(1, value.encode())
    return write_field(_VALUE_FIELDS[kind], inner) if in_value else inner


def _write_moment(value: timedelta) -> bytes:
    nanos = value.microseconds * 1000
    seconds = value.days * 86400 + value.seconds
    return _write_int(1, seconds) + (_write_int(2, nanos) if nanos else b"")


def write_params(descriptors: Descriptors, message: str, params: Mapping[str, Any]) -> bytes:
    """A handler's params, checked against the message (yaml/encoder.go: no expressions).

    Raises:
        DescriptorError: with Mixer's words.
    """
    found = descriptors.message(message)
    written = b""
    for name, value in params.items():
        field = _find_field(found, name)
        if field is None:
            raise DescriptorError(f"field '{name}' not found in message '{found.name}'")
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            if not isinstance(value, Mapping):
                raise _bad_type(name, value, field.type_name[1:])
            if descriptors.message(field.type_name).options.map_entry:
                for key, each in value.items():
                    entry = {"key": key, "value": each}
                    data = write_params(descriptors, field.type_name, entry)
                    written += write_field(field.number, data)
            else:
                data = write_params(descriptors, field.type_name, value)
                written += write_field(field.number, data)
            continue
        wanted: dict[int, tuple[type, str]] = {
            FieldDescriptorProto.TYPE_STRING: (str, "string"),
            FieldDescriptorProto.TYPE_BOOL: (bool, "bool"),
            FieldDescriptorProto.TYPE_INT32: (int, "int"),
            FieldDescriptorProto.TYPE_INT64: (int, "int"),
        }
        kind, said = wanted[field.type]
        if not isinstance(value, kind):
            raise _bad_type(name, value, said)
        written += _write_scalar(field.number, value)
    return written


def _bad_type(name: str, value: Any, wanted: str) -> DescriptorError:
    given = {str: "string", int: "float64", bool: "bool"}.get(type(value), "map")
    return DescriptorError(
        f"field '{name}' is of type '{given}' instead of expected type '{wanted}'"
    )
