"""Lines reach a slow, failing or hanging sink, or are counted; nothing waits for it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from extauthz.usage.marks import Marks
from extauthz.usage.queues import BATCH, SinkQueue
from tests.builders import FakeClock

_WAIT_S: Final = 30


class MemorySink:
    """A sink that can be held up and made to fail."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.batches: list[int] = []
        self.failures = 0
        self.closed = 0
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_asked = threading.Event()
        self.wrote = threading.Event()

    def write(self, lines: Sequence[bytes]) -> None:
        self.is_asked.set()
        assert self.may_write.wait(_WAIT_S)
        if self.failures:
            self.failures -= 1
            raise OSError("no space")
        self.lines += lines
        self.batches.append(len(lines))
        self.wrote.set()

    def close(self) -> None:
        self.closed += 1


def a_queue(
    sink: MemorySink, *, max_waiting: int = 10_000, marks: Marks | None = None
) -> SinkQueue:
    return SinkQueue(
        "memory", sink, FakeClock(), marks=marks, max_waiting=max_waiting, flush_s=0.01
    )


def test_lines_are_written_in_their_order_and_all_before_a_stop() -> None:
    sink = MemorySink()
    queue = a_queue(sink)
    lines = [b"%d" % number for number in range(3 * BATCH + 7)]
    for line in lines:
        queue.put(line)
    queue.close()
    assert sink.lines == lines
    assert max(sink.batches) <= BATCH
    assert (queue.written, queue.dropped, queue.waiting, sink.closed) == (len(lines), 0, 0, 1)


def test_a_line_alone_is_written_after_a_short_time() -> None:
    sink = MemorySink()
    queue = a_queue(sink)
    queue.put(b"alone")
    assert sink.wrote.wait(_WAIT_S)
    assert sink.lines == [b"alone"]
    queue.close()


def test_a_batch_that_failed_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    sink = MemorySink()
    sink.failures = 2
    with caplog.at_level(logging.WARNING):
        queue = a_queue(sink)
        queue.put(b"1")
        assert sink.wrote.wait(_WAIT_S)
        queue.close()
    assert sink.lines == [b"1"]
    assert (queue.failures, queue.written, queue.dropped) == (1, 1, 0)
    assert "no space" in caplog.text


def test_a_full_queue_drops_and_says_how_many_when_it_can() -> None:
    sink = MemorySink()
    sink.may_write.clear()
    queue = a_queue(sink, max_waiting=5)
    queue.put(b"0")
    assert sink.is_asked.wait(_WAIT_S)
    for number in range(1, 9):
        queue.put(b"%d" % number)
    assert (queue.waiting, queue.refused) == (5, 4)
    sink.may_write.set()
    queue.close()
    losses = [json.loads(line)["lost"] for line in sink.lines if line.startswith(b"{")]
    assert losses == [4]
    assert [line for line in sink.lines if not line.startswith(b"{")] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    assert queue.dropped == 4


def test_a_hanging_sink_does_not_hold_up_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    sink = MemorySink()
    sink.may_write.clear()
    queue = a_queue(sink)
    queue.put(b"1")
    assert sink.is_asked.wait(_WAIT_S)
    queue.put(b"2")
    with caplog.at_level(logging.ERROR):
        queue.close(within_s=0.01)
    assert queue.dropped == 2
    assert "2 lines of usage could not be written" in caplog.text
    sink.may_write.set()


def test_a_failing_sink_does_not_hold_up_a_stop() -> None:
    sink = MemorySink()
    sink.failures = 1_000_000
    queue = a_queue(sink)
    queue.put(b"1")
    assert sink.is_asked.wait(_WAIT_S)
    queue.close(within_s=_WAIT_S)
    assert (queue.dropped, queue.written, sink.closed) == (1, 0, 1)


def test_marks_know_what_a_killed_process_had_not_written(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    sink = MemorySink()
    marks = Marks(file)
    queue = a_queue(sink, marks=marks)
    queue.put(b"1")
    assert sink.wrote.wait(_WAIT_S)
    sink.may_write.clear()
    for _ in range(3):
        queue.put(b"2")
    at_the_end = file.read_bytes()
    sink.may_write.set()
    queue.close()
    marks = Marks(file)
    assert marks.lost == 0, "an orderly stop"
    marks.close()
    file.write_bytes(at_the_end)
    marks = Marks(file)
    assert marks.lost in {3, 4}  # the last write may not have been counted yet
    marks.close()
