"""Explanations, limits in use, the catalog, and blocks: the endpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import TypedDict

from extauthz.app.admin.inspection_questions import (
    BLOCK,
    BLOCKS,
    EXPLAIN,
    LIMITS,
    SEARCH,
    UNBLOCK,
)
from extauthz.app.admin.processes import Processes
from extauthz.inspection.blocking import MOST_LISTED as MOST_BLOCKS
from extauthz.inspection.blocking import BlockOrder
from extauthz.inspection.catalog_search import KINDS, MOST_FOUND
from extauthz.inspection.explain_call import ExplainDocument
from extauthz.inspection.limits_in_use import LEVELS, MOST_LISTED, merge
from extauthz.serving.admin.endpoints import (
    ApiCall,
    Endpoint,
    number_parameter,
    text_parameter,
)
from extauthz.serving.admin.errors import ApiError

SEARCH_S: Final = 2.0
"""How long a search of the catalog goes on before it answers with what it has found."""


class LimitShown(TypedDict):
    """A limit with what is left of it now."""

    level: str
    tier: str
    api: str
    version: str
    resource: str
    application: str
    consumer: str
    """Who is counted, masked as in the log of decisions; empty for all callers together."""
    consumer_kind: str
    """application, consumer_key, user, client_address, or subject of a custom limit."""
    algorithm: str
    window: str
    unit: str
    limit: int
    used: int
    remaining: int
    share: float
    """How much of it is used, from 0 to 1."""
    leased: int
    """Of what is used: units that processes have charged in advance and not spent."""
    resets: str
    """When all of it is free again, if nothing more is used."""
    enforced: bool
    counted: str
    """shared: in Redis; process: in each process; outage: in each process, as Redis is away."""
    is_fresh: bool
    """False when the counter could not be read now, and these are its last known numbers."""


class LimitsAnswer(TypedDict):
    """Limits of which the largest share is used, the nearest to its end first."""

    limits: list[LimitShown]
    processes: int


class CatalogAnswer(TypedDict):
    """What was found in the catalog."""

    results: list[dict[str, Any]]
    next: str | None
    """Where the search goes on, as `after`; null at the end."""
    catalog: str
    """The catalog's revision, as in the status."""


class StepShown(TypedDict):
    """One step of a decision."""

    step: str
    passed: bool
    found: str


class ExplainAnswer(TypedDict):
    """Why a request is decided so."""

    decision: str
    reason: str | None
    assumed: str | None
    """The application whose authentication was assumed."""
    steps: list[StepShown]
    log: list[str]
    advice: list[str]
    client: dict[str, Any] | None
    upstream: dict[str, Any] | None


class BlockShown(TypedDict):
    """A block or a revocation. Empty is what it does not name."""

    id: str
    kind: str
    source: str
    in_force: bool
    ip: str
    api: str
    version: str
    application: str
    consumer_key: str
    user: str
    jti: str
    sha256: str
    issuer: str
    issued_before: str
    reason: str
    by: str
    at: str
    until: str


class BlocksAnswer(TypedDict):
    """Blocks and revocations."""

    blocks: list[BlockShown]
    count: int
    """How many there are, listed or not."""
    problems: list[str]


class BlockedAnswer(TypedDict):
    """What became of a block."""

    id: str
    created: bool
    """False when it was there already; its reason and end are the new ones."""
    written_to: str
    processes: int
    """Processes that confirm what they have in force; 0 where blocks are in a file."""
    in_force: int
    """How many of them have it in force."""
    fits: str
    warnings: list[str]


class UnblockedAnswer(TypedDict):
    """What was taken back."""

    id: str
    removed: bool
    """False when there was no such entry."""
    taken_from: list[str]


def list_inspection_endpoints(processes: Processes) -> tuple[Endpoint, ...]:
    """The endpoints for questions about one caller, application or API."""

    async def explain(call: ApiCall) -> ExplainAnswer:
        asked: ExplainDocument = call.body
        told = await processes.ask_one(EXPLAIN, asked.model_dump(mode="json", by_alias=True))
        explained: ExplainAnswer = _read(told)
        return explained

    async def show_limits(call: ApiCall) -> LimitsAnswer:
        query = call.query
        wanted = {
            "most": query["limit"],
            "level": query["level"] or "",
            "application": query["application"] or "",
            "api": query["api"] or "",
        }
        told = await processes.ask(LIMITS, wanted)
        shown: list[Any] = merge(told.values(), most=query["limit"])
        return {"limits": shown, "processes": len(told)}

    async def search(call: ApiCall) -> CatalogAnswer:
        query, until_s = call.query, time.monotonic() + SEARCH_S
        wanted = {
            "text": query["search"] or "",
            "kind": query["kind"] or "",
            "application": query["application"] or "",
            "api": query["api"] or "",
            "most": query["limit"],
            "after": query["after"] or "",
        }
        results: list[dict[str, Any]] = []
        while True:
            page = _read(await processes.ask_one(SEARCH, wanted))
            results += page["results"]
            wanted |= {"most": query["limit"] - len(results), "after": page["next"]}
            if not page["next"] or not wanted["most"] or time.monotonic() >= until_s:
                return {
                    "results": results,
                    "next": page["next"] or None,
                    "catalog": page["catalog"],
                }

    async def list_blocks(call: ApiCall) -> BlocksAnswer:
        told: BlocksAnswer = await processes.ask_one(BLOCKS, call.query["limit"])
        return told

    async def block(call: ApiCall) -> BlockedAnswer:
        order: BlockOrder = call.body
        asked = {"order": order.model_dump(), "who": call.caller.name}
        told: BlockedAnswer = _read(await processes.ask_one(BLOCK, asked))
        return told

    async def unblock(call: ApiCall) -> UnblockedAnswer:
        asked = {"id": call.path["id"], "who": call.caller.name}
        told: UnblockedAnswer = _read(await processes.ask_one(UNBLOCK, asked))
        return told

    return (
        Endpoint(
            method="GET",
            path="/api/limits",
            summary="Limits of which the largest share is used, with what is left of them now.",
            answers=LimitsAnswer,
            handle=show_limits,
            parameters=(
                number_parameter("limit", "The most limits.", at_most=MOST_LISTED, default=50),
                text_parameter("level", "What the limit belongs to.", LEVELS),
                text_parameter("application", "Name of the application that is counted."),
                text_parameter("api", "Name of the API."),
            ),
        ),
        Endpoint(
            method="GET",
            path="/api/catalog",
            summary="Searches the catalog in force.",
            answers=CatalogAnswer,
            handle=search,
            parameters=(
                text_parameter(
                    "search",
                    "A part of a name, base path or host; the beginning of an API key's hash; a "
                    "consumer key or its hash.",
                ),
                text_parameter("kind", "What is searched for.", KINDS),
                text_parameter("application", "Name of an application, whole."),
                text_parameter("api", "Name of an API, whole."),
                number_parameter("limit", "The most results.", at_most=MOST_FOUND, default=20),
                text_parameter("after", "`next` of the page before."),
            ),
        ),
        Endpoint(
            method="POST",
            path="/api/explain",
            summary="Explains how a request is decided. Takes nothing from any limit.",
            answers=ExplainAnswer,
            handle=explain,
            body=ExplainDocument,
        ),
        Endpoint(
            method="GET",
            path="/api/blocks",
            summary="Blocks and revocations that are in force, beside the catalog's deny rules.",
            answers=BlocksAnswer,
            handle=list_blocks,
            parameters=(
                number_parameter("limit", "The most entries.", at_most=MOST_BLOCKS, default=100),
            ),
        ),
        Endpoint(
            method="POST",
            path="/api/blocks",
            summary="Refuses whatever fits all that is given, on every replica.",
            answers=BlockedAnswer,
            handle=block,
            body=BlockOrder,
            needs_known_caller=True,
        ),
        Endpoint(
            method="DELETE",
            path="/api/blocks/{id}",
            summary="Takes a block or revocation back.",
            answers=UnblockedAnswer,
            handle=unblock,
            needs_known_caller=True,
        ),
    )


def _read(told: Mapping[str, Any]) -> Any:
    """The answer of a process.

    Raises:
        ApiError: it is a refusal.
    """
    refused = told.get("refused")
    if refused is None:
        return told["answer"]
    seconds = refused["retry_after_s"]
    headers = {"retry-after": str(seconds)} if seconds else {}
    raise ApiError(refused["status"], refused["code"], refused["message"], headers)
