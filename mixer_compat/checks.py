"""Answers Mixer's checks: authorization, apikey, listentry and checknothing.

Every answer is a CheckResult. A call that cannot be read or decided gets a denial in it, which is
reported to observers like any other. It is never a failed call, because then the proxies' own
failure mode would decide. In shadow mode every answer lets the request pass, without being cached,
and the decision is reported to observers only.

- authorization: the whole decision, or without limits when quota calls ask for those.
- apikey: the same from its few fields: a key, an API and a method with a path.
- listentry: whether a deny rule refuses the value, as an address, an application or a user.
- checknothing: always denied. It has nothing to decide on, and when it is the only instance of a
  rule, an allow would let everything pass.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.message import DecodeError

from extauthz.errors import MalformedRequest
from extauthz.model.decision import UNAVAILABLE, Decision, Denial, Deny
from extauthz.model.deny_rules import DenyRule, read_address
from extauthz.model.request import ApiRequest
from extauthz.policy.blocks import refuse_by
from extauthz.policy.pipeline import Steps
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.serving.methods import Call, UnaryMethod
from mixer_compat.callers import check_caller
from mixer_compat.door import MALFORMED, NO_REQUEST, MixerDoor, make_row
from mixer_compat.instances import read_apikey, read_authorization
from mixer_compat.params import HandlerParams, ParamsError
from mixer_compat.proto.apikey_pb2 import HandleApiKeyRequest
from mixer_compat.proto.authorization_pb2 import HandleAuthorizationRequest
from mixer_compat.proto.checknothing_pb2 import HandleCheckNothingRequest
from mixer_compat.proto.listentry_pb2 import HandleListEntryRequest
from mixer_compat.results import ONCE, find_reuse, find_validity, write_allowed, write_denied
from mixer_compat.values import read_text

_log = logging.getLogger(__name__)

_LIKE_AN_ADDRESS: Final = re.compile(r"\[|(?:\d{1,3}\.){3}\d|[0-9A-Fa-f]{0,64}:[0-9A-Fa-f]{0,64}:")


class _Asked(Protocol):
    """The fields that requests of all check templates share."""

    @property
    def adapter_config(self) -> WireAny:
        """The handler's parameters."""


class Checks:
    """The handlers of the check templates."""

    def __init__(self, door: MixerDoor) -> None:
        self._door = door
        self._unread = RepeatedWarnings(_log, "a check of Mixer's cannot be read, and is denied")

    def methods(self) -> tuple[UnaryMethod[bytes, bytes], ...]:
        """The rows of the method table."""
        return (
            make_row(
                "authorization.HandleAuthorizationService/HandleAuthorization", self.authorization
            ),
            make_row("apikey.HandleApiKeyService/HandleApiKey", self.apikey),
            make_row("listentry.HandleListEntryService/HandleListEntry", self.listentry),
            make_row(
                "checknothing.HandleCheckNothingService/HandleCheckNothing", self.checknothing
            ),
        )

    async def authorization(self, data: bytes, call: Call) -> bytes:
        """HandleAuthorizationRequest in, CheckResult out, both serialised."""

        async def judge(asked: HandleAuthorizationRequest, params: HandlerParams) -> bytes:
            return await self._decide(read_authorization(asked.instance, params), params, call)

        return await self._answer(data, call, HandleAuthorizationRequest, judge)

    async def apikey(self, data: bytes, call: Call) -> bytes:
        """HandleApiKeyRequest in, CheckResult out, both serialised."""

        async def judge(asked: HandleApiKeyRequest, params: HandlerParams) -> bytes:
            return await self._decide(read_apikey(asked.instance), params, call)

        return await self._answer(data, call, HandleApiKeyRequest, judge)

    async def listentry(self, data: bytes, call: Call) -> bytes:
        """HandleListEntryRequest in, CheckResult out, both serialised."""

        async def judge(asked: HandleListEntryRequest, params: HandlerParams) -> bytes:
            value = read_text(asked.instance.value)
            if not value:
                raise MalformedRequest("the listentry instance has no value")
            rule = self._find_rule(value)
            if rule is not None:
                return self._write_denied(refuse_by(rule), params)
            return write_allowed(find_reuse(params))

        return await self._answer(data, call, HandleListEntryRequest, judge)

    async def checknothing(self, data: bytes, call: Call) -> bytes:
        """HandleCheckNothingRequest in, CheckResult out, both serialised."""

        async def judge(_asked: HandleCheckNothingRequest, _params: HandlerParams) -> bytes:
            raise MalformedRequest(
                "a checknothing instance tells nothing of the request; bind an authorization "
                "instance to the handler instead"
            )

        return await self._answer(data, call, HandleCheckNothingRequest, judge)

    async def _answer(
        self,
        data: bytes,
        call: Call,
        message: Any,
        judge: Callable[[Any, HandlerParams], Awaitable[bytes]],
    ) -> bytes:
        """Reads the call, decides, and turns every error into a denial.

        Raises:
            RpcFailure: UNAUTHENTICATED, for a caller that is not known.
        """
        check_caller(call, self._door.callers)
        params = self._door.params.own
        try:
            asked: _Asked = message.FromString(data)
            params = self._door.params.read(asked.adapter_config)
            return await judge(asked, params)
        except DecodeError:
            self._unread.warn(MalformedRequest(f"the message is no {message.DESCRIPTOR.name}"))
            return self._write_denied(MALFORMED, params)
        except MalformedRequest as error:
            self._unread.warn(error)
            return self._write_denied(MALFORMED, params)
        except ParamsError as error:
            self._unread.warn(error)
        except Exception:  # noqa: BLE001  (no failure of any kind may become an allow)
            _log.exception("a check could not be answered because of a defect; it is denied")
        return self._write_denied(UNAVAILABLE, params)

    async def _decide(self, request: ApiRequest, params: HandlerParams, call: Call) -> bytes:
        door = self._door
        decision: Decision = await door.pipeline.decide(
            request,
            steps=Steps.UP_TO_SCOPES if params.limits_in_quota else Steps.ALL,
            deadline=call.deadline,
            shadow=params.shadow,
        )
        if params.shadow:
            return write_allowed(ONCE)
        now_us = door.clock.now_us()
        if isinstance(decision, Deny):
            return write_denied(
                decision, request, door.style, now_us, as_wso2_adapter=params.as_wso2_adapter
            )
        return write_allowed(find_validity(decision, params, now_us))

    def _find_rule(self, value: str) -> DenyRule | None:
        blocks, catalog = self._door.pipeline.blocks, self._door.catalog()
        if blocks.are_empty(catalog):
            return None
        family, number = read_address(value)
        if family and number == 0:
            # Expressions give this text for a missing address; no rule's network would match it.
            raise MalformedRequest("the listentry value says that the address is not known")
        if family:
            return blocks.find_for_client(catalog, value)
        if _LIKE_AN_ADDRESS.match(value.lstrip()):
            # An address with a port, or several addresses: no rule's network would match it.
            raise MalformedRequest("the listentry value is no IP address; give it source.ip alone")
        return blocks.find_for_name(catalog, value)

    def _write_denied(
        self, denial: Denial, params: HandlerParams, request: ApiRequest = NO_REQUEST
    ) -> bytes:
        """The answer to a call that is denied here, without the pipeline."""
        deny = self._door.pipeline.record.refuse(request, denial, shadow=params.shadow)
        if params.shadow:
            return write_allowed(ONCE)
        return write_denied(
            deny,
            request,
            self._door.style,
            self._door.clock.now_us(),
            as_wso2_adapter=params.as_wso2_adapter,
        )
