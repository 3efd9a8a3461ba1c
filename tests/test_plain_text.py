"""Whatever others write, nothing of it acts on a terminal, and no line of a log can be made up."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.app.log import PlainFormatter
from extauthz.cli import main
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError, Problem
from extauthz.model.limits import Algorithm, Charge
from extauthz.plain_text import write_plain, write_plain_lines
from extauthz.serving.inside_envoy.log import EnvoyLog
from tests.builders import S

EVIL = "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 ERROR forged: \u202etxet\x9b31m"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", ""),
        ("plain, größer, 日本", "plain, größer, 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("one\r\ntwo\t", "one\\r\\ntwo\\t"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_writes_out_what_is_not_printable(text: str, plain: str) -> None:
    assert write_plain(text) == plain


@given(st.text(st.characters()))
def test_what_is_written_is_printable_whatever_it_was(text: str) -> None:
    assert write_plain(text).isprintable()
    first, *others = write_plain_lines(text).split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_a_log_record_is_plain_and_its_lines_pass_for_no_other_record() -> None:
    with pytest.raises(ValueError, match="forged") as caught:
        int(EVIL)
    happened = (caught.type, caught.value, caught.tb)
    record = logging.LogRecord(
        "extauthz.x", logging.WARNING, "", 0, "it says %s", (EVIL,), happened
    )
    written = PlainFormatter("%(levelname)s %(message)s").format(record)
    assert all(line.isprintable() for line in written.split("\n"))
    assert not any(line.startswith("2026-01-01") for line in written.split("\n"))
    assert "forged" in written


def test_the_services_log_is_written_so(tmp_path: Path) -> None:
    program = (
        "import logging, sys; from extauthz.app.log import start_log; "
        "from extauthz.settings.tree import LogSettings; start_log(LogSettings()); "
        "logging.getLogger('extauthz').warning('%s', sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, EVIL], capture_output=True, check=True, cwd=tmp_path
    )
    assert b"forged" in done.stderr
    assert all(line.isprintable() for line in done.stderr.decode().rstrip("\n").split("\n"))


def test_a_problem_is_told_in_one_plain_line() -> None:
    told = str(Problem(message=f"bad {EVIL}", file=f"{EVIL}.yaml", line=3, path=f"apis.{EVIL}"))
    assert told.isprintable()


@pytest.mark.parametrize("command", ["validate", "migrate"])
def test_a_files_name_does_not_act_on_the_terminal(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "evil\x1b[2J\n.yaml"
    file.write_text("kind: \x1b\n" if command == "migrate" else "listen: 5\n")
    arguments = [command, str(file)]
    if command == "migrate":
        arguments += ["--out", str(tmp_path / "out\x1b[2J")]
    main(arguments)
    main([command, str(tmp_path / "missing\x1b[2J.yaml"), *arguments[2:]])
    told = capsys.readouterr()
    assert "\\x1b[2J" in told.out + told.err
    assert "\x1b" not in told.out + told.err


async def test_an_error_of_redis_is_told_plainly() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"MGET")
        writer.write(b"-ERR \x1b[2J\x07\r\n-ERR \x1b[2J\x07\r\n")
        await reader.readuntil(b"EVALSHA")
        writer.write(b"-ERR \x1b[2J\x07\n2026 forged\r\n")
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        address = read_redis_url(f"redis://127.0.0.1:{port}")
        store = RedisCounterStore(RedisSettings(address=address, timeout_s=5))
        with pytest.raises(CounterStoreError, match="forged") as caught:
            await store.take([Charge("{a}k", Algorithm.FIXED_WINDOW, 3, 60 * S)])
        assert str(caught.value).isprintable()
        await store.close()


async def test_what_envoy_says_is_logged_plainly(caplog: pytest.LogCaptureFixture) -> None:
    log = EnvoyLog()
    await log.start()
    log.is_starting = False
    os.write(log.descriptor, b"error|\x1b[2J bad\xff\x9b\n")
    log.leave_to_envoy()
    await log.close()
    (record,) = [one for one in caplog.records if one.name == "extauthz.envoy"]
    assert "bad" in record.getMessage()
    assert PlainFormatter("%(message)s").format(record).isprintable()
