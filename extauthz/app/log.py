"""Starts the log of this process, and opens the log of decisions."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extauthz.app.counting import check_redis, read_redis_settings
from extauthz.app.tracing import make_otlp_exporter
from extauthz.counters.redis.settings import RedisSettings
from extauthz.errors import ConfigError, Problem
from extauthz.model.identity import Secret
from extauthz.plain_text import write_plain_lines
from extauthz.settings.log import DecisionLogSettings, DecisionStreamSettings, LogSettings
from extauthz.settings.reading import read_secret_file
from extauthz.settings.stores import RedisAccessSettings
from extauthz.settings.tree import Settings
from extauthz.telemetry.decision_log.lines import FileLines, StdoutLines
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.redis_stream import DecisionStreamError, RedisStream
from extauthz.telemetry.decision_log.sampling import DecisionSampling
from extauthz.telemetry.decision_log.sinks import SinkThread
from extauthz.telemetry.log_lines import JsonFormatter

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter

    from extauthz.telemetry.otlp_logs import LogSender

_log = logging.getLogger(__name__)


class PlainFormatter(logging.Formatter):
    """Writes records so that nothing in them acts on a terminal or passes for another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """The record without its traceback."""
        return write_plain_lines(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return write_plain_lines(super().formatException(ei))


def start_log(settings: LogSettings, *, worker: int = 0) -> None:
    """Starts to write the log of this process, with the number of the worker."""
    handler = logging.StreamHandler(sys.stdout if settings.output == "stdout" else sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonFormatter(worker))
    else:
        who = f" [worker {worker}]" if worker else ""
        form = f"%(asctime)s %(levelname)s{who} %(name)s: %(message)s"
        handler.setFormatter(PlainFormatter(form))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler])
    # They log each request's URL, and each change of a file, at INFO.
    for name in ("httpx2", "httpcore2", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def open_log_sending(
    settings: Settings, *, worker: int = 0, environment: Mapping[str, str] = os.environ
) -> Iterator[None]:
    """Sends the lines of this process's log to a collector, for the block.

    Does nothing when neither the settings nor the environment ask for it.

    Raises:
        ConfigError: they cannot be sent with these settings or variables.
    """
    asked_by = "log.otlp" if settings.log.otlp else ""
    sender = open_log_sender(settings, asked_by, environment)
    if sender is None:
        yield
        return
    from extauthz.telemetry.otlp_logs import OtlpHandler

    handler, root = OtlpHandler(sender, worker), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        if not sender.close():
            _log.warning("the last lines of the log could not be sent: the collector is too slow")


def open_log_sender(
    settings: Settings, asked_by: str, environment: Mapping[str, str] = os.environ
) -> LogSender | None:
    """What sends to the collector; None when it is not asked for, or turned off.

    asked_by: the setting that asks for it; empty when a variable may still ask for it.

    Raises:
        ConfigError: nothing can be sent with these settings or variables.
    """

    def make(protocol: str, endpoint: str | None) -> LogRecordExporter:
        from extauthz.telemetry.otlp_logs import make_log_exporter

        return make_log_exporter(protocol, endpoint)

    exporter = make_otlp_exporter(settings.telemetry, environment, "LOGS", make, asked_by=asked_by)
    if exporter is None:
        return None
    from extauthz.telemetry.otlp_logs import LogSender

    try:
        return LogSender(exporter)
    except ValueError as exc:  # an invalid OTEL_BLRP_* or OTEL_LOGRECORD_*
        message = f"a variable OTEL_* is not usable: {exc}"
        raise ConfigError([Problem(path=asked_by or "log.otlp", message=message)]) from exc


def check_log(settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
    """Checks that lines can be sent and decisions written, without doing either.

    Raises:
        ConfigError: they cannot.
    """
    decisions = settings.log.decisions
    asked_by = [
        "log.otlp" if settings.log.otlp else "",
        *(["log.decisions.otlp"] if decisions is not None and decisions.otlp else []),
    ]
    for setting in asked_by:
        sender = open_log_sender(settings, setting, environment)
        if sender is not None:
            sender.close()
    if decisions is None:
        return
    _read_hash_key(decisions)
    if decisions.redis is not None:
        _read_stream(settings, decisions.redis)
    file = decisions.file
    if file is None:
        return
    there = file if file.exists() else file.parent
    why = ""
    if not file.parent.is_dir():
        why = "No such file or directory"
    elif file.is_dir():
        why = "Is a directory"
    elif not os.access(there, os.W_OK):
        why = "Permission denied"
    if why:
        raise _cannot_be_written(file, why)


def _cannot_be_written(file: Path, why: str | None) -> ConfigError:
    message = f"cannot be written: {why}; name a file in a folder that is there"
    return ConfigError([Problem(file=str(file), message=message)])


@contextmanager
def open_decision_log(settings: Settings) -> Iterator[DecisionLog | None]:
    """Opens the log of decisions; None when the settings do not ask for it.

    Raises:
        ConfigError: the file cannot be written, or another setting is not usable.
    """
    decisions = settings.log.decisions
    if decisions is None:
        yield None
        return
    masks, key = read_masks(settings), _read_hash_key(decisions)
    sampling = DecisionSampling(
        allow_ratio=decisions.allow_ratio, deny_ratio=decisions.deny_ratio, key=key
    )
    log = DecisionLog(_open_sinks(settings, decisions), masks, sampling)
    try:
        yield log
    finally:
        log.close()


def read_masks(settings: Settings) -> Masks:
    """How records of decisions are masked, wherever they are shown.

    Raises:
        ConfigError: the file with the key for hashes cannot be used.
    """
    decisions = settings.log.decisions
    if decisions is None:
        return Masks()
    key = _read_hash_key(decisions)
    return Masks(client_address=decisions.client_address, user=decisions.user, key=key)


def _open_sinks(settings: Settings, decisions: DecisionLogSettings) -> list[SinkThread]:
    """Opens the sinks. What may fail comes first."""
    sinks = []
    redis = None if decisions.redis is None else _read_stream(settings, decisions.redis)
    file = None
    if decisions.file is not None:
        try:
            file = FileLines(decisions.file)
        except OSError as exc:
            raise _cannot_be_written(decisions.file, exc.strerror) from exc
    sender = open_log_sender(settings, "log.decisions.otlp") if decisions.otlp else None
    if file is not None:
        sinks.append(SinkThread("file", file, place=str(decisions.file)))
    if decisions.stdout:
        sinks.append(SinkThread("stdout", StdoutLines(), place="standard output"))
    stream = decisions.redis
    if stream is not None and redis is not None:
        from extauthz.counters.redis.calls import RedisCalls  # brings Redis's client

        calls = RedisCalls(redis, (f"{redis.prefix}{stream.key}",), DecisionStreamError)
        sink = RedisStream(calls, max_length=stream.max_length)
        sinks.append(SinkThread("redis", sink, place=f"Redis at {redis.address}"))
    if sender is not None:
        from extauthz.telemetry.otlp_logs import DECISION, OtlpEvents

        events = OtlpEvents(sender, DECISION)
        sinks.append(SinkThread("otlp", events, place="the collector", lost=sender.count_lost))
    return sinks


def _read_hash_key(decisions: DecisionLogSettings) -> Secret | None:
    return None if decisions.hash_key_file is None else read_secret_file(decisions.hash_key_file)


def _read_stream(settings: Settings, stream: DecisionStreamSettings) -> RedisSettings:
    """How the Redis of the stream is reached.

    Raises:
        ConfigError: its settings contradict each other, or a file cannot be used.
    """
    access: RedisAccessSettings = settings.counters if stream.url is None else stream
    check_redis(access, "counters" if stream.url is None else "log.decisions.redis")
    return read_redis_settings(access)
