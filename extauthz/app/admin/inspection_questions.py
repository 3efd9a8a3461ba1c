"""What a process that decides can be asked about its catalog, limits and blocks, and to explain.

A refusal is an answer, too: an exception would be taken for a process that does not answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from extauthz.app.answers import make_explainer
from extauthz.app.core import Core, read_failure_limit
from extauthz.app.emergency import opened_stores
from extauthz.clock import SteadyClock
from extauthz.counters.memory import MemoryCounterStore
from extauthz.emergency.reading import EmergencyStore
from extauthz.errors import BackendError, ConfigError, ExtauthzError
from extauthz.inspection.blocking import BadBlock, Blocking, BlockOrder, NotBlocked
from extauthz.inspection.catalog_entries import Search
from extauthz.inspection.catalog_search import CatalogChanged, search_catalog
from extauthz.inspection.example_request import UnknownName
from extauthz.inspection.explain_call import (
    BadQuestion,
    ExplainCalls,
    ExplainDocument,
    TooManyGuesses,
)
from extauthz.inspection.limits_in_use import LimitFilter, LimitsInUse
from extauthz.policy.authentication.failed_attempts import FailedAttempts
from extauthz.serving.workers.control import Questions
from extauthz.settings.tree import Settings
from extauthz.telemetry.decision_log.masking import Masks

EXPLAIN: Final = "explain"
LIMITS: Final = "limits in use"
SEARCH: Final = "search the catalog"
BLOCKS: Final = "blocks"
BLOCK: Final = "block"
UNBLOCK: Final = "unblock"

_STATUS: Final[Mapping[type[ExtauthzError], int]] = {
    BadQuestion: 400,
    BadBlock: 400,
    UnknownName: 404,
    CatalogChanged: 409,
    NotBlocked: 409,
    TooManyGuesses: 429,
    ConfigError: 503,
    BackendError: 503,
}
"""By error: the status of HTTP with which it is refused."""


def answer_inspection(core: Core, settings: Settings, masks: Masks) -> Questions:
    """The questions, by name. Each answer has ``answer``, or ``refused``.

    Raises:
        ConfigError: as for `make_explainer`.
    """
    guesses = MemoryCounterStore(core.clock, max_keys=10, steady=SteadyClock())
    calls = ExplainCalls(
        make_explainer(core, settings, masks),
        FailedAttempts(read_failure_limit(settings), guesses),
    )
    limits = LimitsInUse(
        core.most_used,
        core.counting.read,
        core.clock,
        masks,
        is_shared=core.counting.shared is not None,
    )

    def open_stores() -> AbstractAsyncContextManager[list[EmergencyStore]]:
        return opened_stores(settings)

    blocking = Blocking(
        core.emergency, lambda: core.refresher.catalog, open_stores, core.clock, masks
    )

    async def explain(of: Any) -> dict[str, Any]:
        return await _answer(calls.explain(ExplainDocument.model_validate(of)))

    async def find_limits(of: Mapping[str, Any]) -> list[dict[str, Any]]:
        return await limits.find(LimitFilter(**of))

    async def search(of: Mapping[str, Any]) -> dict[str, Any]:
        return await _answer(_search(of))

    async def _search(of: Mapping[str, Any]) -> dict[str, Any]:
        catalog = core.refresher.catalog
        page = await search_catalog(catalog, Search(**of), masks)
        return {"results": page.results, "next": page.next, "catalog": catalog.revision}

    async def list_blocks(most: int) -> dict[str, Any]:
        return await blocking.list(most)

    async def block(of: Mapping[str, Any]) -> dict[str, Any]:
        # It was checked where it came in, and its duration is a number since.
        order = BlockOrder.model_construct(**of["order"])
        return await _answer(blocking.block(order, of["who"]))

    async def unblock(of: Mapping[str, str]) -> dict[str, Any]:
        return await _answer(blocking.unblock(of["id"], of["who"]))

    return {
        EXPLAIN: explain,
        LIMITS: find_limits,
        SEARCH: search,
        BLOCKS: list_blocks,
        BLOCK: block,
        UNBLOCK: unblock,
    }


async def _answer(asked: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"answer": await asked}
    except ExtauthzError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        retry_after_s = error.retry_after_s if isinstance(error, TooManyGuesses) else 0
        return {
            "refused": {
                "status": status,
                "code": error.code,
                "message": str(error),
                "retry_after_s": retry_after_s,
            }
        }
