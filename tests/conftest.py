"""What holds for every test."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# No test is timed: a busy machine must not fail one.
settings.register_profile("extauthz", deadline=None)
settings.load_profile("extauthz")

# A run that a script starts in the background ignores SIGINT, and so would the programs that
# tests interrupt: they inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_LONG_FILES: Final = (
    *("tests/e2e/", "tests/demo/", "tests/properties/", "tests/contracts/"),
    "tests/serving/admin/page/",
)
"""Where few tests take long. They are begun first, so that no process is left with one at the end."""
_SHARING: Final = "tests/e2e/deciding/"
"""Files that go through the same Envoys to the same services, which are started once a process."""


class LoadFileAndHost(LoadFileScheduling):  # type: ignore[misc]
    """Gives a process the tests that share what is started: those of one file, on one host."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        host = re.search(r"[\[-](on_[a-z]+)[\]-]", nodeid)
        if host is None:
            return str(file)
        return f"{_SHARING if file.startswith(_SHARING) else file} {host[1]}"

    def _assign_work_unit(self, node: object) -> None:
        longest = max(self.workqueue, key=self._weigh)
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)

    def _weigh(self, scope: str) -> tuple[bool, int]:
        return scope.startswith(_LONG_FILES), len(self.workqueue[scope])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileAndHost | None:
    return LoadFileAndHost(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for a program's TMPDIR, with a path that is short enough for sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
