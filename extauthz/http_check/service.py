"""Answers a proxy's question with the pipeline's decision. No network in here."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Final, Protocol

from extauthz.answers.denial import DenialStyle, write_denial
from extauthz.answers.sendable import UNSENDABLE, AnswerError
from extauthz.answers.upstream import UpstreamStyle, write_upstream_changes
from extauthz.errors import MalformedRequest
from extauthz.http_check.answer import Asker, write_allowed, write_denied, write_undecided
from extauthz.http_check.question import DOOR, find_asker, read_question
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.request import ApiRequest
from extauthz.policy.decision_record import DecisionRecord
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.ports import NO_DEADLINE, Clock, Deadline
from extauthz.serving.http_messages import Question, Reply

_log = logging.getLogger(__name__)
_UNREAD: Final = ApiRequest(method="", host="", path="", door=DOOR)
_NOTHING_HERE: Final = Reply(
    404,
    (("content-type", "text/plain; charset=utf-8"),),
    "nothing is asked here; docs/how-to/http-check.md has the paths for each proxy\n",
)
"""Every proxy takes it for a refusal."""
_PASS: Final = Reply(200, ())


class Decide(Protocol):
    """The pipeline's `decide`, as the door calls it."""

    def __call__(
        self, request: ApiRequest, *, deadline: Deadline, shadow: bool = False
    ) -> Awaitable[Decision]: ...


class HttpCheckService:
    """Answers questions.

    Args:
        shadow: decisions are made for observers only; every request passes unchanged.
        use_remote_address: see `extauthz.http_check.question`.
        record: for denials that this door makes by itself.
    """

    def __init__(
        self,
        *,
        decide: Decide,
        denial: DenialStyle,
        upstream: UpstreamStyle,
        clock: Clock,
        use_remote_address: bool | None = None,
        shadow: bool = False,
        record: DecisionRecord | None = None,
    ) -> None:
        self._decide = decide
        self._denial = denial
        self._upstream = upstream
        self._clock = clock
        self._use_remote_address = use_remote_address
        self._shadow = shadow
        self._record = record or DecisionRecord()
        self._unread = RepeatedWarnings(_log, "a question over HTTP could not be read")

    async def answer(self, question: Question) -> Reply:
        """The answer to a question."""
        asker = find_asker(question.target)
        if asker is None:
            return _NOTHING_HERE
        try:
            request = read_question(question, asker, use_remote_address=self._use_remote_address)
        except MalformedRequest as error:
            return self._refuse_unread(error, asker)
        decision = await self._decide(request, deadline=NO_DEADLINE, shadow=self._shadow)
        if self._shadow:
            return _PASS
        if isinstance(decision, Allow):
            try:
                changes = write_upstream_changes(decision, request, self._upstream)
                return write_allowed(changes, self._upstream.own_headers, asker)
            except AnswerError as error:
                # A denial, not "could not decide": otherwise a caller that can choose an identity
                # value could pass where the operator lets failed calls pass.
                _log.error(
                    "decision %s cannot be sent, so the request is denied: %s", decision.id, error
                )
                decision = Deny(
                    id=decision.id,
                    denial=UNSENDABLE,
                    route=decision.route,
                    client_address=decision.client_address,
                )
                return self._write_denied(decision, request, asker)
        return self._write_denied(decision, request, asker)

    def _refuse_unread(self, error: MalformedRequest, asker: Asker) -> Reply:
        self._unread.warn(error)
        denial = Denial(reason=Reason.MALFORMED_REQUEST)
        deny = self._record.refuse(_UNREAD, denial, shadow=self._shadow)
        return _PASS if self._shadow else self._write_denied(deny, _UNREAD, asker)

    def _write_denied(self, deny: Deny, request: ApiRequest, asker: Asker) -> Reply:
        answer = write_denial(deny, request, self._denial, self._clock.now_us())
        if deny.reason is Reason.UNAVAILABLE and deny.denial is not UNSENDABLE:
            return write_undecided(answer)
        return write_denied(answer, asker)
