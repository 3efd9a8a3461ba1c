"""Asks issuers about opaque tokens (RFC 7662, or `key_validation`), and caches the answers.

`extauthz.clients.introspection_answers` says what an answer means: active, a denial, or no
decision, which is not cached. A positive answer is cached until the token expires, or for the
endpoint's `ttl_us` if that is shorter; a denial for `inactive_ttl_us`. The claims (``exp``,
``nbf``, ``iss``, ``aud``) are checked by the caller with each request:
`extauthz.policy.authentication.claim_checks.check_introspected`.

Requests with the same token share one call, and a caller that gives up does not stop it for the
others. A client may have as many calls in progress as remain for all other clients: half of them
when it is the only one. Tokens are not kept: answers are cached under the token's SHA-256.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote_plus

import httpx2

from extauthz.clients.bodies import IDENTITY_ENCODING, UnusableBody, read_body
from extauthz.clients.introspection_answers import TokenRefused, read_answer
from extauthz.clients.issuer_http import HTTP_TIMEOUT, IssuerHttp, say_failure
from extauthz.clients.key_validation import (
    HEADERS,
    read_validation,
    write_basic,
    write_question,
)
from extauthz.clients.waiting import is_done_by
from extauthz.errors import IntrospectionError, IntrospectionShareError
from extauthz.model.decision import Denial
from extauthz.model.identity import Secret
from extauthz.model.issuers import (
    ApiCall,
    IntrospectionEndpoint,
    Issuer,
    KeyValidationEndpoint,
)
from extauthz.policy.authentication.claim_checks import drop_absent
from extauthz.policy.authentication.claims import read_numeric_date_us
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.ports import NO_DEADLINE, Clock, Deadline
from extauthz.telemetry.measures.dependencies import CallMeasure

_LOG: Final = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1 << 16

MAX_CALLS_PER_TOKEN: Final = 64
"""Answers that are cached of one token, where they depend on the call."""

_Asked = tuple[str, str, str, ApiCall | None]
"""Issuer, URL, client id and call; an answer is valid for the same four only."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A cached answer of an endpoint; claims of None mean "inactive"."""

    claims: Mapping[str, Any] | Denial | None
    since_us: int
    until_us: int

    def is_good(self, now_us: int) -> bool:
        """Whether the answer may be used; not when the clock was set back since it came."""
        return self.since_us <= now_us < self.until_us


class IntrospectionClient:
    """A `TokenIntrospector` over HTTP.

    Args:
        max_entries: tokens whose answers are cached; the least recently used is dropped first.
        max_calls: calls to one issuer at the same time; more are refused at once.
        measure: counts the calls.
    """

    def __init__(
        self,
        http: IssuerHttp,
        clock: Clock,
        *,
        max_entries: int = 10_000,
        max_calls: int = 128,
        measure: CallMeasure | None = None,
    ) -> None:
        self._http = http
        self._clock = clock
        self._max_entries = max_entries
        self._max_calls = max_calls
        self._measure = measure or CallMeasure()
        self._answers: OrderedDict[bytes, dict[_Asked, _Answer]] = OrderedDict()
        self._calls: dict[tuple[bytes, _Asked], asyncio.Task[_Answer]] = {}
        self._running: set[asyncio.Task[_Answer]] = set()
        self._running_for: dict[str, Counter[str]] = {}
        """Calls in progress to an issuer, by the client that sent the token."""
        self.hits = 0
        """Questions that the cache answered, since the start."""
        self.misses = 0
        """Other questions, also those that shared a call, since the start."""
        self._proven: set[_Asked] = set()
        """Endpoints that have given a valid answer (RFC 7662)."""
        self._refusals = RepeatedWarnings(_LOG, "a token is denied, as its issuer refused it")

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any] | Denial | None:
        """See `TokenIntrospector`. The members of the answer, for an active token.

        Raises:
            IntrospectionShareError: the client's share of calls is used up.
            IntrospectionError: there was no usable answer by the deadline.
        """
        digest, asked = token.digest(), _name_question(issuer, call)
        kept = self._find_answer(digest, asked)
        if kept is not None:
            self.hits += 1
            return kept.claims
        self.misses += 1
        asking = self._calls.get((digest, asked))
        if asking is None:
            asking = self._start_call(digest, asked, issuer, token, client)
        if not await is_done_by(asking, deadline):
            raise IntrospectionError(f"{issuer.issuer} did not answer by the deadline")
        if asking.cancelled():
            raise IntrospectionError("the introspection client was closed")
        error = asking.exception()
        if error is not None:
            raise IntrospectionError(
                f"{issuer.issuer} could not be asked about a token: {error}",
                transient=not isinstance(error, IntrospectionError) or error.transient,
            ) from error
        return asking.result().claims

    def forget(self, token: Secret) -> None:
        """Drops the cached answer of a token. A call in progress will not be cached."""
        digest = token.digest()
        self._answers.pop(digest, None)
        for key in [key for key in self._calls if key[0] == digest]:
            del self._calls[key]

    async def close(self) -> None:
        """Stops the calls in progress. HTTP clients stay open; their owner closes them."""
        running = tuple(self._running)
        for call in running:
            call.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _find_answer(self, digest: bytes, asked: _Asked) -> _Answer | None:
        answers = self._answers.get(digest)
        answer = None if answers is None else answers.get(asked)
        if answers is None or answer is None:
            return None
        if not answer.is_good(self._clock.now_us()):
            del answers[asked]
            if not answers:
                del self._answers[digest]
            return None
        self._answers.move_to_end(digest)
        return answer

    def _start_call(
        self, digest: bytes, asked: _Asked, issuer: Issuer, token: Secret, client: str
    ) -> asyncio.Task[_Answer]:
        name = issuer.issuer
        running = self._running_for.setdefault(name, Counter())
        left = self._max_calls - running.total()
        if running[client] >= max(1, left):
            raise IntrospectionShareError(f"{name} is being asked about too many of one client")
        if left <= 0:
            raise IntrospectionError(
                f"{name} is being asked about {self._max_calls} tokens already"
            )
        call = asyncio.create_task(self._ask(asked, issuer, token))
        self._calls[digest, asked] = call
        self._running.add(call)
        running[client] += 1

        def end(ended: asyncio.Task[_Answer]) -> None:
            self._running.discard(ended)
            running[client] -= 1
            if not running[client]:
                del running[client]
            # Forgotten meanwhile (or asked anew): the answer may be older than a revocation.
            is_current = self._calls.get((digest, asked)) is ended
            if is_current:
                del self._calls[digest, asked]
            # Asking for the exception marks it as seen, also when every caller has gone.
            if not ended.cancelled() and ended.exception() is None and is_current:
                self._keep(digest, asked, ended.result())

        call.add_done_callback(end)
        return call

    def _keep(self, digest: bytes, asked: _Asked, answer: _Answer) -> None:
        if not answer.is_good(self._clock.now_us()):
            return
        answers = self._answers.setdefault(digest, {})
        answers.pop(asked, None)
        answers[asked] = answer
        if len(answers) > MAX_CALLS_PER_TOKEN:
            del answers[next(iter(answers))]
        self._answers.move_to_end(digest)
        while len(self._answers) > self._max_entries:
            self._answers.popitem(last=False)

    async def _ask(self, asked: _Asked, issuer: Issuer, token: Secret) -> _Answer:
        endpoint = issuer.key_validation or issuer.introspection
        assert endpoint is not None
        timeout_s = endpoint.timeout_us / 1_000_000
        try:
            with self._measure.measure(HTTP_TIMEOUT):
                async with asyncio.timeout(timeout_s):
                    if isinstance(endpoint, KeyValidationEndpoint):
                        return await self._validate(issuer, endpoint, token, asked, timeout_s)
                    status, body = await self._post(issuer, endpoint, token, timeout_s)
                return self._judge(status, body, asked, endpoint)
        except TimeoutError:
            failure = f"no answer within {timeout_s:g} s"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
            failure = say_failure(error, issuer)
        except ValueError as error:
            failure = f"the answer is {error}"
        # Out of the handlers, and in words of our own: a library's error carries the request along,
        # and with it the token.
        raise IntrospectionError(failure)

    async def _validate(
        self,
        issuer: Issuer,
        endpoint: KeyValidationEndpoint,
        token: Secret,
        asked: _Asked,
        timeout_s: float,
    ) -> _Answer:
        """Asks about the token for a call."""
        call = asked[3]
        assert call is not None
        headers = {**HEADERS, **IDENTITY_ENCODING, "authorization": write_basic(endpoint)}
        status, body = await self._send(
            issuer, endpoint.url, headers, timeout_s, content=write_question(token, call)
        )
        answer = read_validation(status, body, endpoint, call)
        now_us = self._clock.now_us()
        if answer is None or isinstance(answer, Denial):
            return _Answer(answer, now_us, now_us + endpoint.inactive_ttl_us)
        until_us = _believed_until(answer, endpoint, now_us)
        return _Answer(MappingProxyType(dict(answer)), now_us, until_us)

    def _judge(
        self, status: int, body: bytes, asked: _Asked, endpoint: IntrospectionEndpoint
    ) -> _Answer:
        now_us = self._clock.now_us()
        denied = _Answer(None, now_us, now_us + endpoint.inactive_ttl_us)
        try:
            claims = read_answer(status, body, endpoint)
        except TokenRefused as refusal:
            if asked not in self._proven:
                # The token, or a parameter that this provider does not accept, caused it.
                self._refusals.warn(
                    IntrospectionError(
                        f"{asked[0]} answered {refusal}, and has not said of any token yet "
                        "whether it is active; if it never does, check introspection"
                    )
                )
            return denied
        self._proven.add(asked)
        if not claims["active"]:
            return denied
        claims = drop_absent(claims)
        until_us = _believed_until(claims, endpoint, now_us)
        return _Answer(MappingProxyType(claims), now_us, until_us)

    async def _post(
        self, issuer: Issuer, endpoint: IntrospectionEndpoint, token: Secret, timeout_s: float
    ) -> tuple[int, bytes]:
        """The answer's status and body."""
        form = {"token": token.reveal(), "token_type_hint": "access_token"}
        headers = {"accept": "application/json", **IDENTITY_ENCODING}
        if endpoint.credentials_in_body:
            form["client_id"] = endpoint.client_id
            form["client_secret"] = endpoint.client_secret.reveal()
        else:
            headers["authorization"] = _write_basic(endpoint)
        return await self._send(issuer, endpoint.url, headers, timeout_s, data=form)

    async def _send(
        self,
        issuer: Issuer,
        url: str,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        data: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> tuple[int, bytes]:
        """Posts a form or a body; the answer's status and body."""
        async with self._http.find_client(issuer, url).stream(
            "POST",
            # httpx2 logs the URL of each request. A user in it has no meaning next to ours.
            httpx2.URL(url).copy_with(userinfo=b""),
            data=data,
            content=content,
            headers=headers,
            follow_redirects=False,
            timeout=timeout_s,
        ) as response:
            status = response.status_code
            try:
                return status, await read_body(response, max_bytes=MAX_BODY_BYTES)
            except UnusableBody:
                if status == httpx2.codes.OK:
                    raise
                return status, b""  # the status says enough


def _name_question(issuer: Issuer, call: ApiCall | None) -> _Asked:
    """What an answer is valid for."""
    validation, endpoint = issuer.key_validation, issuer.introspection
    if validation is not None:
        if call is None:
            raise IntrospectionError(
                f"issuer {issuer.issuer} decides about calls, and none was named", transient=False
            )
        return issuer.issuer, validation.url, validation.username, call
    if endpoint is not None:
        return issuer.issuer, endpoint.url, endpoint.client_id, None
    raise IntrospectionError(
        f"issuer {issuer.issuer} has neither introspection nor key_validation; configure one",
        transient=False,
    )


def _write_basic(endpoint: IntrospectionEndpoint) -> str:
    """HTTP Basic with both parts form-encoded first (RFC 6749 2.3.1)."""
    pair = f"{quote_plus(endpoint.client_id)}:{quote_plus(endpoint.client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _believed_until(
    claims: Mapping[str, Any], endpoint: IntrospectionEndpoint | KeyValidationEndpoint, now_us: int
) -> int:
    until_us = now_us + endpoint.ttl_us
    if "exp" not in claims:
        return until_us
    expires_at_us = read_numeric_date_us(claims["exp"])
    # An expiry that cannot be read ends at once: the answer is given, and not kept.
    return now_us if expires_at_us is None else min(until_us, expires_at_us)
