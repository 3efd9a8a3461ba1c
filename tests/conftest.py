"""What holds for every test."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


class LoadFileAndHost(LoadFileScheduling):  # type: ignore[misc]
    """Gives a process the tests of one file that run on one host: they share what is started."""

    def _split_scope(self, nodeid: str) -> str:
        host = re.search(r"[\[-](on_[a-z]+)[\]-]", nodeid)
        return f"{super()._split_scope(nodeid)} {host[1] if host else ''}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileAndHost | None:
    return LoadFileAndHost(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for a program's TMPDIR, with a path that is short enough for sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
