"""Explains a request that somebody describes over HTTP, within bounds.

Whoever may ask for explanations must not find keys by them any faster than by requests. A door
counts invalid credentials by the client's address; here the asker would choose the address, and so
could avoid the count, or have somebody else's address refused. So all explanations together have
the guesses that one client has at a door, and further ones are refused without looking at the
credential. Requests with a credential are explained one after the other, and an issuer is waited
for no longer than `EXPLAIN_S`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final

from pydantic import Field

from extauthz.documents.document import Fits, StrictModel
from extauthz.errors import ExtauthzError
from extauthz.inspection.example_request import find_api, find_application, name_api
from extauthz.inspection.explanation import Explainer, write_explanation
from extauthz.model.decision import Deny
from extauthz.model.deny_rules import read_address
from extauthz.model.identity import KeyType
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.model.routing.authority import find_host
from extauthz.policy.authentication.assumed import AssumedCaller
from extauthz.policy.authentication.authenticate import GUESSES
from extauthz.policy.authentication.failed_attempts import FailedAttempts
from extauthz.ports import NO_DEADLINE, Deadline

EXPLAIN_S: Final = 1.0
"""How long an explanation may wait for an issuer: a worker answers one question after the other."""
_EVERYBODY: Final = "explanations"

_Text = Annotated[str, Field(max_length=8_192)]
_Word = Annotated[str, Field(max_length=256)]


class BadQuestion(ExtauthzError):
    """A request that is to be explained is not well described."""

    code = "bad_question"


class TooManyGuesses(ExtauthzError):
    """Too many invalid credentials were explained. `retry_after_s` is when there is room again."""

    code = "too_many_guesses"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AssumedDocument(StrictModel):
    """An application that is assumed to call, so that no credential is needed."""

    application: _Word
    """Its name."""
    key_type: KeyType = KeyType.PRODUCTION
    """Type of its credential."""
    scopes: Annotated[tuple[_Word, ...], Field(max_length=256)] | None = None
    """Scopes of its credential; left out: scopes are not checked."""


class ExplainDocument(StrictModel):
    """A request. It is to a host and path, or to an API that is named."""

    method: Annotated[str, Fits(r"^[A-Za-z-]{1,32}$", "must be a method, like GET")] | None = None
    """Left out: GET, or one that the resource takes."""
    host: _Word = "localhost"
    """The host, with a port or without."""
    path: _Text | None = None
    """The path with its query; for an API that is named, with its base path or without."""
    api: _Word | None = None
    """An API, instead of a host."""
    version: _Word = ""
    """Its version; left out: the default one, or the only one."""
    resource: _Text = ""
    """Template of one of its resources, instead of a path."""
    headers: Annotated[dict[_Word, _Text], Field(max_length=128)] = Field(default_factory=dict)
    """Header fields, in which a credential may stand."""
    client: Annotated[str, Field(max_length=64)] = "127.0.0.1"
    """The client's address; with X-Forwarded-For, the address that Envoy sees."""
    principal: _Text = ""
    """The name in the client's certificate."""
    context: Annotated[dict[_Word, _Text], Field(max_length=32)] = Field(default_factory=dict)
    """Context extensions of the route."""
    assumed: AssumedDocument | None = Field(default=None, alias="as")
    """Who calls, whatever the headers hold."""


class ExplainCalls:
    """Explains described requests. `guesses` counts invalid credentials of all of them."""

    def __init__(self, explainer: Explainer, guesses: FailedAttempts) -> None:
        self._explainer = explainer
        self._guesses = guesses
        self._one = asyncio.Lock()
        """Guesses are counted afterwards: several at once would be more than are allowed."""

    async def explain(self, asked: ExplainDocument) -> dict[str, Any]:
        """The explanation, as JSON can hold it.

        Raises:
            BadQuestion: the request cannot be made as described.
            UnknownName: a name is not in the catalog.
            TooManyGuesses: see the module's text.
        """
        request = await self._make_request(asked)
        assumed = await self._find_assumed(asked)
        if assumed is not None:
            return await self._explain(request, assumed)
        async with self._one:
            refused = await self._guesses.check(_EVERYBODY, NO_DEADLINE)
            if refused is not None:
                raise TooManyGuesses(
                    "too many invalid credentials were explained; explain as an application instead",
                    -(-refused.retry_after_us // 1_000_000),
                )
            return await self._explain(request, None)

    async def _explain(self, request: ApiRequest, assumed: AssumedCaller | None) -> dict[str, Any]:
        deadline = Deadline(time.monotonic() + EXPLAIN_S)
        explanation = await self._explainer.explain(request, assumed, deadline=deadline)
        decision = explanation.decision
        if assumed is None and isinstance(decision, Deny) and decision.reason in GUESSES:
            await self._guesses.record(_EVERYBODY, NO_DEADLINE)
        return write_explanation(explanation)

    async def _find_assumed(self, asked: ExplainDocument) -> AssumedCaller | None:
        said = asked.assumed
        if said is None:
            return None
        return AssumedCaller(
            application=await find_application(self._explainer.catalog(), said.application),
            key_type=said.key_type,
            scopes=None if said.scopes is None else frozenset(said.scopes),
        )

    async def _make_request(self, asked: ExplainDocument) -> ApiRequest:
        path, _, query = (asked.path or "").partition("?")
        if asked.api is None and (asked.version or asked.resource):
            raise BadQuestion("version and resource are of an API; add api")
        if asked.path is None and asked.api is None:
            raise BadQuestion("say host and path, or api with resource or path")
        if asked.path is not None and asked.resource:
            raise BadQuestion("say resource or path, and not both")
        if asked.path is not None and not path.startswith("/"):
            raise BadQuestion("path must begin with a slash")
        if not read_address(asked.client)[1]:
            raise BadQuestion("client must be an IP address")
        method = (asked.method or "").upper()
        request = ApiRequest(
            method=method or "GET",
            host=find_host([asked.host]),
            path=path,
            query=query,
            scheme="http",
            headers=Headers(asked.headers, are_apart=True),
            source=Peer(address=asked.client, principal=asked.principal),
            context=asked.context,
        )
        if asked.api is None:
            return request
        catalog = self._explainer.catalog()
        api = await find_api(catalog, asked.api, asked.version)
        return name_api(request, catalog, api, resource=asked.resource, method=method)
