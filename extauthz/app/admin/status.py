"""What runs, with which catalog, and whether it is ready."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from typing_extensions import TypedDict

from extauthz.app.admin.processes import Processes
from extauthz.app.admin.questions import CATALOG, DEPENDENCIES, CatalogState, write_time
from extauthz.serving.admin.endpoints import ApiCall, Endpoint
from extauthz.serving.admin.readiness import ReadyCheck, write_readiness
from extauthz.telemetry.measures.dependencies import DependencyState, merge_states


class WorkerCounts(TypedDict):
    """The processes that decide."""

    serving: int
    wanted: int
    restarts: int


class DependencyShown(TypedDict):
    """What is asked while deciding, like Redis or an issuer."""

    name: str
    state: str
    """ok; failing: the last call of one of its operations failed; unused: there was none."""
    calls: int
    failures: int
    p50_ms: float | None
    """Of the last one to two minutes, as is p99_ms."""
    p99_ms: float | None


class StatusAnswer(TypedDict):
    """What runs, with which catalog, and whether it is ready."""

    version: str
    started: str
    workers: WorkerCounts
    profile: str
    catalog: CatalogState
    ready: dict[str, Any]
    dependencies: list[DependencyShown]


def list_status_endpoints(
    processes: Processes,
    checks: Callable[[], Awaitable[Sequence[ReadyCheck]]],
    *,
    version: str,
    profile: str,
) -> tuple[Endpoint, ...]:
    """The endpoint of the status. `version` is the program's, `profile` that of its answers."""
    started = write_time(time.time())

    async def show_status(_: ApiCall) -> StatusAnswer:
        catalog = await processes.ask_one(CATALOG)
        told = await processes.ask(DEPENDENCIES)
        count = processes.count()
        return {
            "version": version,
            "started": started,
            "workers": {
                "serving": count.serving,
                "wanted": count.wanted,
                "restarts": count.restarts,
            },
            "profile": profile,
            "catalog": catalog,
            "ready": write_readiness(await checks()),
            "dependencies": [_show_dependency(it) for it in merge_states(told.values())],
        }

    return (
        Endpoint(
            method="GET",
            path="/api/status",
            summary="What runs, with which catalog, and whether it is ready.",
            answers=StatusAnswer,
            handle=show_status,
        ),
    )


def _show_dependency(state: DependencyState) -> DependencyShown:
    return {
        "name": state.name,
        "state": state.state,
        "calls": state.calls,
        "failures": state.failures,
        "p50_ms": state.p50_ms,
        "p99_ms": state.p99_ms,
    }
