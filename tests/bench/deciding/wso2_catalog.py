"""What a large API Manager costs: its first reading, memory, and an edit's way into the catalog.

Run with ``python -m tests.bench.deciding.wso2_catalog``. The stand-in for the API Manager answers in this
process, on the same cores; its part is in all times. Nothing decides meanwhile: what replacing a
catalog costs decisions is measured by `catalog`.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from extauthz.app.catalog import open_source
from extauthz.catalog.wso2.source import Wso2CatalogSource
from extauthz.demo.api_manager.server import ApiManager, run_api_manager
from extauthz.settings.tree import Settings

TITLE = "A large WSO2 API Manager"
APIS: Final = 1_000
APPLICATIONS: Final = 20_000
SUBSCRIPTIONS: Final = 100_000
EDITS: Final = 3
PASSWORD: Final = "a-password"
RESOURCES: Final = [
    {"method": method, "path": f"/items{number}/{{id}}"}
    for number in range(5)
    for method in ("GET", "POST")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, and what it should be."""

    figure: str
    value: float
    goal: str = ""


def fill(manager: ApiManager) -> None:
    """Publishes everything."""
    tables = manager.tables
    for number in range(APIS):
        tables.publish_api(f"api{number}", "1.0.0", f"/api{number}/1.0.0", RESOURCES)
    for number in range(APPLICATIONS):
        owner = f"owner{number % 500}"
        tables.generate_keys(tables.create_application(f"app{number}", owner, policy="10PerMin"))
    for number in range(SUBSCRIPTIONS):
        turn, application = divmod(number, APPLICATIONS)
        tables.subscribe(
            tables.applications[application], tables.apis[(application * 7 + turn) % APIS]
        )


async def follow(manager: ApiManager, folder: Path) -> list[Row]:
    """Reads it, and edits it."""
    (folder / "password").write_text(PASSWORD)
    wso2 = {
        "url": manager.url,
        "username": "admin",
        "password_file": folder / "password",
        "ca": manager.ca_file,
        "refresh": "1h",
        "start_timeout": "10m",
        "state_dir": folder / "state",
    }
    settings = Settings.model_validate({"catalog": {"wso2": wso2}})
    async with open_source(settings, has_pepper=False) as source:
        assert isinstance(source, Wso2CatalogSource)
        began_s = perf_counter()
        catalog = await source.load()
        first_s = perf_counter() - began_s
        assert len(catalog.subscriptions) == SUBSCRIPTIONS and source.last_pull is not None
        pulled_s = source.last_pull.took_s
        written_s, enforced_s = [], []
        for number in range(EDITS):
            began_s = perf_counter()
            manager.tables.publish_api(f"new{number}", "1", f"/new{number}/1", RESOURCES)
            source.pull_now()
            await source.wait_for_change()
            written_s.append(perf_counter() - began_s)
            catalog = await source.load()
            enforced_s.append(perf_counter() - began_s)
            assert (f"new{number}", "1") in catalog.apis
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return [
        Row(figure="first reading into a document, s", value=round(pulled_s, 1)),
        Row(figure="first catalog, s", value=round(first_s, 1), goal="60"),
        Row(figure="an edit with an event into the document, s", value=round(median(written_s), 1)),
        Row(figure="an edit with an event into the catalog, s", value=round(median(enforced_s), 1),
            goal="2"),
        Row(figure="memory of the largest child process, MiB", value=round(children / 1024)),
    ]  # fmt: skip


def measure() -> Iterator[Row]:
    """Measures all of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with run_api_manager(folder, password=PASSWORD) as manager:
            fill(manager)
            yield from asyncio.run(follow(manager, folder))


if __name__ == "__main__":
    for row in measure():
        print(f"{row.figure}: {row.value:g}" + (f" (goal: {row.goal})" if row.goal else ""))
