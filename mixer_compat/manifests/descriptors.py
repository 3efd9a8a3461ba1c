"""Writes our protos for Mixer: a file descriptor set with its imports, in base64.

Mixer recognises a template's file by the option `template_variety`, which exactly one file of the
set may have, and finds messages by name. The sets are made from the descriptors that protobuf has
loaded, so Mixer and the adapter always use the same messages. The file that declares the options is
left out together with its import: Mixer has both built in, and descriptor.proto would make up two
thirds of each object and change with every release of protobuf.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from types import ModuleType
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from mixer_compat.proto import (
    authorization_pb2,
    metric_pb2,
    params_pb2,
    quota_pb2,
    template_pb2,
)

TEMPLATES: Final[dict[str, ModuleType]] = {
    "authorization": authorization_pb2,
    "metric": metric_pb2,
    "quota": quota_pb2,
}
"""The templates whose instances the manifests use, by Mixer's name."""

_OPTIONS: Final = template_pb2.DESCRIPTOR.name


def write_template_descriptor(template: str) -> str:
    """The `descriptor` of a template object: a file descriptor set, in base64."""
    return _write(TEMPLATES[template].DESCRIPTOR)


def write_params_descriptor() -> str:
    """The `config` of our adapter object: the file with the message Params, in base64."""
    return _write(params_pb2.DESCRIPTOR)


def _write(file: FileDescriptor) -> str:
    found = FileDescriptorSet()
    for each in {one.name: one for one in _with_imports(file)}.values():
        found.file.append(_read_file(each))
    return base64.b64encode(found.SerializeToString(deterministic=True)).decode("ascii")


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """The file after its imports, so that a reader can link the files in this order."""
    for needed in file.dependencies:
        if needed.name != _OPTIONS:
            yield from _with_imports(needed)
    yield file


def _read_file(file: FileDescriptor) -> FileDescriptorProto:
    found = FileDescriptorProto.FromString(file.serialized_pb)
    if _OPTIONS in found.dependency:
        found.dependency.remove(_OPTIONS)
    for message in found.message_type:
        _name_fields(message)
    return found


def _name_fields(message: DescriptorProto) -> None:
    """Adds the JSON names, which Python's copies lack: Mixer looks fields up by either name."""
    for field in message.field:
        first, *rest = field.name.split("_")
        field.json_name = first + "".join(word[:1].upper() + word[1:] for word in rest)
    for nested in message.nested_type:
        _name_fields(nested)
