"""Explains one decision: what each step found, what client and upstream get, and what to do.

The decision is the pipeline's own. It is a peek: nothing is taken from limits, and no observer is
told. Neither credentials nor the values of query parameters are in an explanation, so that it can
go into a ticket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, assert_never

from extauthz.answers.denial import HttpAnswer, write_denial
from extauthz.answers.sendable import UNSENDABLE, AnswerError
from extauthz.answers.upstream import UpstreamChanges, write_upstream_changes
from extauthz.envoy.authorization import AnswerStyle
from extauthz.envoy.check_response import write_allow
from extauthz.inspection.advice import advise_on_credentials, list_advice
from extauthz.inspection.findings import Finding, say_assumed, say_finding
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Identity
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.policy.authentication.assumed import AssumedCaller
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.progress import Step
from extauthz.policy.scopes import SCOPE_EXTENSION
from extauthz.ports import NO_DEADLINE, Clock, Deadline
from extauthz.telemetry.decision_log.masking import Masks, User

_HIDDEN: Final = "…"
_MOST_LOGGED: Final = 20


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a decision.

    Attributes:
        log: what was logged meanwhile, which may say why.
        assumed: the application whose authentication was assumed; empty when none was.
    """

    decision: Decision
    findings: tuple[Finding, ...]
    log: tuple[str, ...]
    assumed: str = ""
    advice: tuple[str, ...] = ()
    answer: HttpAnswer | None = None
    changes: UpstreamChanges | None = None


class MakePipeline(Protocol):
    """Makes a pipeline of the parts that decide. No observer is told of its decisions."""

    def __call__(self, *, trusted_hops: int | None = None) -> Pipeline:
        """The pipeline. `trusted_hops` replaces those of the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """Explains decisions by the catalog in force.

    Attributes:
        make_pipeline: makes one that decides as the doors do, without observers. There is a new
            one for each explanation: it would keep the catalog that it has decided by.
        masks: for users and consumer keys; None shows them.
    """

    make_pipeline: MakePipeline
    catalog: Callable[[], Catalog]
    style: AnswerStyle
    places: CredentialPlaces
    clock: Clock
    masks: Masks | None = None

    async def explain(
        self,
        request: ApiRequest,
        assumed: AssumedCaller | None = None,
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> Explanation:
        """Decides on a request and explains that.

        assumed: who calls, whatever the request presents.
        """
        # Without that field, the client is the peer that is named.
        hops = None if "x-forwarded-for" in request.headers else 0
        pipeline = self.make_pipeline(trusted_hops=hops)
        catalog = self.catalog()
        findings: list[Finding] = []
        asks_scopes = SCOPE_EXTENSION in request.context

        def note(step: Step, found: object) -> None:
            nonlocal asks_scopes
            if isinstance(found, Route):
                asks_scopes = asks_scopes or bool(found.resource.scopes)
            passed = not isinstance(found, Denial | DenyRule)
            # Deny rules are asked twice, before and after it is known who calls.
            if not (passed and any(finding.step is step for finding in findings)):
                if isinstance(found, Identity):
                    found = self._mask(found)
                text = say_finding(step, found, catalog)
                if assumed is not None and passed:
                    text = say_assumed(step, text, assumed, asks_scopes=asks_scopes)
                findings.append(Finding(step, passed, text))

        with _collected_log() as log:
            if assumed is None:
                decision = await pipeline.decide(
                    request, deadline=deadline, charge=False, note=note
                )
            else:
                decision = await pipeline.decide_as(request, assumed, deadline=deadline, note=note)
        if isinstance(decision, Deny) and decision.reason is Reason.UNAVAILABLE:
            reached = {Step.DENY_RULES, *(finding.step for finding in findings)}
            step = next((step for step in Step if step not in reached), Step.RATE_LIMITS)
            findings.append(Finding(step, passed=False, text="could not be decided"))
        name = "" if assumed is None else assumed.application.name
        explanation = Explanation(decision, tuple(findings), tuple(log), name)
        explanation = self._answer(explanation, request, catalog)
        if assumed is None:
            return explanation
        more = tuple(await advise_on_credentials(catalog, assumed.application, decision.route))
        return replace(explanation, advice=explanation.advice + more)

    def _answer(
        self, explanation: Explanation, request: ApiRequest, catalog: Catalog
    ) -> Explanation:
        style = self.style
        advice: tuple[str, ...]
        match explanation.decision:
            case Allow() as allow:
                changes = write_upstream_changes(allow, request, style.upstream)
                try:
                    write_allow(
                        set_headers=changes.set_headers,
                        remove_headers=changes.remove_headers,
                        response_headers=changes.response_headers,
                    )
                except AnswerError as error:
                    deny = Deny(id=allow.id, denial=UNSENDABLE, route=allow.route)
                    advice = (f"The caller's identity cannot be sent on: {error}.",)
                else:
                    changes = write_upstream_changes(
                        replace(allow, identity=self._mask(allow.identity)), request, style.upstream
                    )
                    hidden = {"cookie"}
                    if style.upstream.backend_jwt is not None:
                        hidden.add(style.upstream.backend_jwt.header)
                    return replace(explanation, changes=_hide(changes, hidden))
            case Deny() as deny:
                deny = replace(deny, identity=self._mask(deny.identity))
                advice = tuple(list_advice(deny, request, catalog, self.places))
                if deny.reason is Reason.UNAVAILABLE and not style.error_response:
                    return replace(explanation, advice=advice)  # Envoy answers the client
            case _:
                assert_never(explanation.decision)
        answer = write_denial(deny, request, style.denial, self.clock.now_us())
        return replace(explanation, decision=deny, answer=answer, advice=advice)

    def _mask(self, identity: Identity) -> Identity:
        """The identity as it may be shown; all that is written of it is written of this one."""
        masks = self.masks
        if masks is None:
            return identity
        return replace(
            identity,
            user=masks.show_user(User(identity.user)),
            consumer_key=masks.hash_text(identity.consumer_key),
        )


_collecting: ContextVar[list[str] | None] = ContextVar("_collecting", default=None)


@contextmanager
def _collected_log() -> Iterator[list[str]]:
    """Warnings and errors of this decision alone, which say why something could not be had."""
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> None:
        if _collecting.get() is lines and len(lines) < _MOST_LOGGED:
            lines.append(record.getMessage())

    handler = logging.Handler(logging.WARNING)
    handler.emit = keep  # type: ignore[method-assign]
    logger = logging.getLogger("extauthz")
    logger.addHandler(handler)
    before = _collecting.set(lines)
    try:
        yield lines
    finally:
        _collecting.reset(before)
        logger.removeHandler(handler)


def _hide(changes: UpstreamChanges, names: set[str]) -> UpstreamChanges:
    """The same changes without what is secret in them."""
    fields = []
    for name, value in changes.set_headers:
        if name in names:
            value = _HIDDEN
        elif name == ":path":
            path, mark, query = value.partition("?")
            value = path + mark + hide_values(query)
        fields.append((name, value))
    return replace(changes, set_headers=tuple(fields))


def hide_values(query: str) -> str:
    """A query with the names of its parameters, and without their values."""
    pairs = (part.partition("=") for part in query.split("&"))
    return "&".join(f"{name}={_HIDDEN}" if mark else name for name, mark, _ in pairs)


def write_explanation(explanation: Explanation) -> dict[str, Any]:
    """The explanation as values that JSON can hold."""
    decision, answer, changes = explanation.decision, explanation.answer, explanation.changes
    client: Mapping[str, Any] | None = None
    if answer is not None:
        client = {"status": answer.status, "headers": answer.headers, "body": answer.body}
    upstream: Mapping[str, Any] | None = None
    if changes is not None:
        upstream = {
            "set_headers": changes.set_headers,
            "remove_headers": changes.remove_headers,
            "removed_query": changes.removed_query,
            "response_headers": changes.response_headers,
        }
    return {
        "decision": "allow" if isinstance(decision, Allow) else "deny",
        "reason": None if isinstance(decision, Allow) else decision.reason.value,
        "assumed": explanation.assumed or None,
        "steps": [
            {"step": finding.step.value, "passed": finding.passed, "found": finding.text}
            for finding in explanation.findings
        ],
        "log": explanation.log,
        "advice": explanation.advice,
        "client": client,
        "upstream": upstream,
    }
