"""Fetches issuers' verification keys, and caches them.

A request waits for a fetch only when no keys are known yet, when its token names an unknown key, or
when no known key verifies its signature, because the key may have been replaced under the same
name. All waiting requests share one fetch, and one that gives up does not stop it. A request waits
for a part of its time only, so that its denial is in time. Old keys are fetched again in the
background. When a fetch fails, the keys that are known stay. Two fetches are at least the issuer's
cool-down apart, whatever tokens name and however often a fetch fails, so neither a caller nor an
outage can cause a flood of fetches.

Keys are cached by issuer and location: a new catalog that changes neither keeps them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

import httpx2

from extauthz.clients.bodies import IDENTITY_ENCODING, read_body
from extauthz.clients.issuer_http import HTTP_TIMEOUT, IssuerHttp, say_failure
from extauthz.clients.waiting import is_done_by
from extauthz.errors import KeySourceError
from extauthz.model.issuers import Issuer, KeyLocation
from extauthz.policy.authentication.strict_json import read_json_object
from extauthz.policy.authentication.verification_keys import (
    KeySet,
    NamedKey,
    read_hmac_secret,
    read_jwks,
    read_pem,
)
from extauthz.ports import NO_DEADLINE, Clock, Deadline, VerificationKey
from extauthz.telemetry.measures.dependencies import CallMeasure

_LOG: Final = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1 << 20
FETCH_TIMEOUT_S: Final = 5.0

_WAIT_PART: Final = 0.75
"""The part of a request's time that it waits. A denial that comes together with the deadline may be
too late, and a proxy that lets failures pass would then let a denied request through."""


class _IssuerKeys:
    """The cached keys of one issuer."""

    __slots__ = ("attempted_at_us", "failure", "fetch", "fetched_at_us", "known")

    def __init__(self) -> None:
        self.known: KeySet | None = None
        self.fetched_at_us = 0
        self.attempted_at_us: int | None = None
        self.failure: str | None = None
        """Why the last fetch failed; None when it did not."""
        self.fetch: asyncio.Task[None] | None = None


class JwksKeySource:
    """A `KeySource` over JWK Sets, OpenID discovery, PEM text and shared secrets.

    Args:
        timeout_s: for both calls of a fetch, that of a discovery document and that of the keys.
        fetches, discoveries: count these calls.
    """

    def __init__(
        self,
        http: IssuerHttp,
        clock: Clock,
        *,
        timeout_s: float = FETCH_TIMEOUT_S,
        fetches: CallMeasure | None = None,
        discoveries: CallMeasure | None = None,
    ) -> None:
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s
        self._fetched = fetches or CallMeasure()
        self._discovered = discoveries or CallMeasure()
        self._states: dict[tuple[str, KeyLocation], _IssuerKeys] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.hits = 0
        """Searches among fetched keys that found one, since the start."""
        self.misses = 0
        """Searches for which keys had to be fetched, since the start."""

    async def find_keys(
        self, issuer: Issuer, key_id: str | None, *, deadline: Deadline = NO_DEADLINE
    ) -> Sequence[NamedKey]:
        """Keys named `key_id`, else keys without a name; all keys when it is None.

        Empty when no known key fits, also when a fetch that could bring one fails or takes
        too long: an unknown name alone must not turn a denial into an outage.

        Raises:
            KeySourceError: no keys are known, and they could not be fetched by the deadline.
        """
        location = issuer.keys
        if location is None:
            raise KeySourceError(
                f"issuer {issuer.issuer} has no keys; configure where they are", transient=False
            )
        state = self._states.get((issuer.issuer, location))
        if state is None:
            state = self._states[issuer.issuer, location] = _IssuerKeys()
        if not _is_remote(location):
            return _read_local(state, issuer, location).find(key_id)
        found = () if state.known is None else state.known.find(key_id)
        if found:
            self.hits += 1
        else:
            self.misses += 1
        if state.known is None:
            return (await self._wait_for_first(state, issuer, location, deadline)).find(key_id)
        if found:
            # Also when the clock was set back since then: their age is not known.
            if not 0 <= self._clock.now_us() - state.fetched_at_us < issuer.refresh_us:
                self._start_fetch(state, issuer, location)
            return found
        fetch = self._start_fetch(state, issuer, location)
        if fetch is not None:
            await is_done_by(fetch, deadline, part=_WAIT_PART)
        return state.known.find(key_id)

    async def find_newer_keys(
        self,
        issuer: Issuer,
        key_id: str | None,
        than: Sequence[VerificationKey],
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[NamedKey]:
        """See `KeySource.find_newer_keys`. Configured keys change with the catalog only."""
        location = issuer.keys
        state = None if location is None else self._states.get((issuer.issuer, location))
        if location is None or state is None or state.known is None or not _is_remote(location):
            return ()
        # Another request's fetch may have ended while this signature was checked.
        found = state.known.find(key_id)
        # Without any key to try, `find_keys` has waited for a fetch already.
        if found == than and than:
            fetch = self._start_fetch(state, issuer, location)
            if fetch is not None:
                await is_done_by(fetch, deadline, part=_WAIT_PART)
            found = state.known.find(key_id)
        return () if found == than else found

    def retain(self, issuers: Iterable[Issuer]) -> None:
        """Drops the keys of every issuer that is not among these."""
        kept = {(issuer.issuer, issuer.keys) for issuer in issuers}
        self._states = {key: state for key, state in self._states.items() if key in kept}

    async def close(self) -> None:
        """Stops the fetches in progress. HTTP clients stay open; their owner closes them."""
        self._is_closed = True
        fetches = tuple(self._fetches)
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _wait_for_first(
        self, state: _IssuerKeys, issuer: Issuer, location: KeyLocation, deadline: Deadline
    ) -> KeySet:
        fetch = self._start_fetch(state, issuer, location)
        in_time = fetch is None or await is_done_by(fetch, deadline, part=_WAIT_PART)
        if state.known is not None:
            return state.known
        if not in_time:
            raise KeySourceError(f"the keys of {issuer.issuer} did not arrive by the deadline")
        failure = state.failure or "the key source was closed"
        raise KeySourceError(f"the keys of {issuer.issuer} could not be fetched: {failure}")

    def _start_fetch(
        self, state: _IssuerKeys, issuer: Issuer, location: KeyLocation
    ) -> asyncio.Task[None] | None:
        """The fetch in progress, or a new one; None while the cool-down lasts."""
        if state.fetch is not None:
            return state.fetch
        now_us = self._clock.now_us()
        if self._is_closed or (
            # A clock that was set back must not make the cool-down longer.
            state.attempted_at_us is not None
            and 0 <= now_us - state.attempted_at_us < issuer.cooldown_us
        ):
            return None
        state.attempted_at_us = now_us
        fetch = asyncio.create_task(self._fetch(state, issuer, location))
        state.fetch = fetch
        self._fetches.add(fetch)
        fetch.add_done_callback(self._fetches.discard)
        return fetch

    async def _fetch(self, state: _IssuerKeys, issuer: Issuer, location: KeyLocation) -> None:
        try:
            end_s = asyncio.get_running_loop().time() + self._timeout_s
            url = await self._find_url(issuer, location, end_s)
            with self._fetched.measure(HTTP_TIMEOUT):
                known = read_jwks(await self._get(issuer, url, end_s))
        except TimeoutError:
            failure = f"no answer within {self._timeout_s:g} s"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
            failure = say_failure(error, issuer)
        except ValueError as error:
            failure = f"the answer is {error}"
        else:
            if state.failure is not None:
                _LOG.info("the keys of %s can be fetched again", issuer.issuer)
            if state.known is None or state.known.left_out != known.left_out:
                _log_left_out(issuer, known)
            state.known, state.failure = known, None
            state.fetched_at_us = self._clock.now_us()
            return
        finally:
            state.fetch = None
        if state.failure is None:
            kept = "no keys are known" if state.known is None else "known keys stay in use"
            _LOG.warning(
                "the keys of %s could not be fetched (%s); %s", issuer.issuer, failure, kept
            )
        state.failure = failure

    async def _find_url(self, issuer: Issuer, location: KeyLocation, end_s: float) -> str:
        if location.discovery_url is None:
            assert location.jwks_url is not None
            return location.jwks_url
        with self._discovered.measure(HTTP_TIMEOUT):
            return await self._discover(issuer, location.discovery_url, end_s)

    async def _discover(self, issuer: Issuer, discovery_url: str, end_s: float) -> str:
        metadata = read_json_object(await self._get(issuer, discovery_url, end_s))
        if metadata.get("issuer") != issuer.issuer:
            # OpenID Connect Discovery 4.3: or one provider could speak for another.
            raise ValueError("a discovery document of another issuer")
        url = metadata.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError("a discovery document without jwks_uri")  # noqa: TRY004  # a wrong value, read from outside
        schemes = {"https", httpx2.URL(discovery_url).scheme}
        if httpx2.URL(url).scheme not in schemes:
            raise ValueError("a discovery document with a jwks_uri that is not https")
        return url

    async def _get(self, issuer: Issuer, url: str, end_s: float) -> bytes:
        """The body at a URL. `end_s` is when to give up, by the event loop's time."""
        async with asyncio.timeout_at(end_s):
            return await self._get_body(issuer, url)

    async def _get_body(self, issuer: Issuer, url: str) -> bytes:
        asked = httpx2.URL(url)
        async with self._http.find_client(issuer, url).stream(
            "GET",
            # httpx2 logs the URL of each request: a password in it goes another way.
            asked.copy_with(userinfo=b""),
            auth=(asked.username, asked.password) if asked.userinfo else None,
            headers={"accept": "application/json, application/jwk-set+json", **IDENTITY_ENCODING},
            follow_redirects=False,
            timeout=self._timeout_s,
        ) as response:
            if response.status_code != httpx2.codes.OK:
                raise ValueError(f"of status {response.status_code} and not 200")
            return await read_body(response, max_bytes=MAX_BODY_BYTES)


def _is_remote(location: KeyLocation) -> bool:
    return location.jwks_url is not None or location.discovery_url is not None


def _read_local(state: _IssuerKeys, issuer: Issuer, location: KeyLocation) -> KeySet:
    if state.known is not None:
        return state.known
    try:
        known = _read_location(location)
    except ValueError as error:
        raise KeySourceError(
            f"the keys of {issuer.issuer} cannot be used: {error}", transient=False
        ) from error
    _log_left_out(issuer, known)
    state.known = known
    return known


def _read_location(location: KeyLocation) -> KeySet:
    if location.jwks is not None:
        return read_jwks(location.jwks.encode())
    if location.pem is not None:
        return read_pem(location.pem)
    if location.hmac_secret is not None:
        return read_hmac_secret(location.hmac_secret)
    raise ValueError("no place for keys is configured")


def _log_left_out(issuer: Issuer, known: KeySet) -> None:
    for reason in known.left_out:
        _LOG.warning("a key of %s is not used: %s", issuer.issuer, reason)
