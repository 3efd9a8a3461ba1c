"""Answers istio.mixer.adapter.model.v1beta1.InfrastructureBackend.

Only Mixer's own `bypass` adapter calls it, when its handler is created or changed. Mixer never
sends a session's id with a call, so a session is only a name. Every answer has a status, because
that adapter reads it without a check, and its handler fails when there is none.

Source: istio/istio mixer/adapter/bypass/bypass.go.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Final

from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.message import DecodeError

from extauthz.serving.methods import Call, RpcCode, UnaryMethod
from mixer_compat.callers import check_caller
from mixer_compat.door import MixerDoor, make_row
from mixer_compat.params import ParamsError
from mixer_compat.proto.model_pb2 import (
    CloseSessionRequest,
    CloseSessionResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    ValidateRequest,
    ValidateResponse,
)
from mixer_compat.proto.status_pb2 import Status

SERVICE: Final = "istio.mixer.adapter.model.v1beta1.InfrastructureBackend"
MAX_SESSIONS: Final = 1000
"""The most open sessions; a further one replaces the oldest."""
_UNREADABLE: Final = Status(
    code=RpcCode.INVALID_ARGUMENT, message="the message could not be decoded"
)


class Sessions:
    """The handlers of the infrastructure backend. Each raises RpcFailure as checks do."""

    def __init__(self, door: MixerDoor) -> None:
        self._door = door
        self._open: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """The number of open sessions."""
        return len(self._open)

    def methods(self) -> tuple[UnaryMethod[bytes, bytes], ...]:
        """The rows of the method table."""
        return tuple(
            make_row(f"{SERVICE}/{name}", handle)
            for name, handle in (
                ("Validate", self.validate),
                ("CreateSession", self.create),
                ("CloseSession", self.close),
            )
        )

    async def validate(self, data: bytes, call: Call) -> bytes:
        """ValidateRequest in, ValidateResponse out: checks the handler's parameters."""
        check_caller(call, self._door.callers)
        try:
            asked = ValidateRequest.FromString(data)
        except DecodeError:
            return ValidateResponse(status=_UNREADABLE).SerializeToString()
        return ValidateResponse(status=self._judge(asked.adapter_config)).SerializeToString()

    async def create(self, data: bytes, call: Call) -> bytes:
        """CreateSessionRequest in, CreateSessionResponse out."""
        check_caller(call, self._door.callers)
        try:
            asked = CreateSessionRequest.FromString(data)
        except DecodeError:
            return CreateSessionResponse(status=_UNREADABLE).SerializeToString()
        status = self._judge(asked.adapter_config)
        if status.code:
            return CreateSessionResponse(status=status).SerializeToString()
        name = secrets.token_hex(16)
        self._open[name] = None
        if len(self._open) > MAX_SESSIONS:
            self._open.popitem(last=False)
        return CreateSessionResponse(session_id=name, status=status).SerializeToString()

    async def close(self, data: bytes, call: Call) -> bytes:
        """CloseSessionRequest in, CloseSessionResponse out; an unknown session counts as closed."""
        check_caller(call, self._door.callers)
        try:
            self._open.pop(CloseSessionRequest.FromString(data).session_id, None)
        except DecodeError:
            return CloseSessionResponse(status=_UNREADABLE).SerializeToString()
        return CloseSessionResponse(status=Status()).SerializeToString()

    def _judge(self, config: WireAny) -> Status:
        try:
            self._door.params.read(config)
        except ParamsError as error:
            return Status(code=RpcCode.INVALID_ARGUMENT, message=str(error))
        return Status()
