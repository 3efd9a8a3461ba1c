"""Opens the sinks of usage from the settings."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from extauthz.app.counting import check_redis, read_redis_settings
from extauthz.app.log import open_log_sender
from extauthz.counters.redis.settings import RedisSettings
from extauthz.errors import ConfigError, Problem
from extauthz.ports import Clock, UsageSink
from extauthz.settings.reading import read_secret_file
from extauthz.settings.stores import RedisAccessSettings
from extauthz.settings.tree import Settings
from extauthz.settings.usage import UsagePluginSettings, UsageSettings, UsageStreamSettings
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.redis_stream import DecisionStreamError, RedisStream
from extauthz.telemetry.decision_log.sinks import Sink, SinkThread
from extauthz.usage.file import name_worker_file, open_usage_file
from extauthz.usage.log import FILE, UsageLog
from extauthz.usage.marks import Marks
from extauthz.usage.plugin import PluginSink

_log = logging.getLogger(__name__)

_OTLP: Final = "usage.otlp"
MAX_WAITING: Final = 100_000
"""Requests that may wait for a sink, some 60 MB."""


def check_usage(settings: Settings) -> None:
    """Checks that usage can be written, without writing or making anything.

    Raises:
        ConfigError: it cannot.
    """
    usage = settings.usage
    if usage is None:
        return
    _read_masks(usage)
    if usage.redis is not None:
        _read_stream(settings, usage.redis)
    if usage.plugin is not None:
        _find_factory(usage.plugin)
    sender = open_log_sender(settings, _OTLP) if usage.otlp else None
    if sender is not None:
        sender.close()
    if usage.file is not None:
        _check_file(usage.file.path)


def _check_file(file: Path) -> None:
    folder = file.parent
    why = ""
    if not folder.is_dir():
        why = "No such file or directory"
    elif file.is_dir():
        why = "Is a directory"
    elif not os.access(folder, os.W_OK):
        why = "Permission denied"
    if why:
        message = f"cannot be written: {why}; name a file in a folder where files can be made"
        raise ConfigError([Problem(file=str(file), message=message)])


def open_usage_log(settings: Settings, clock: Clock, worker: int) -> UsageLog:
    """Opens every sink. The settings must have a section `usage`.

    Args:
        settings: the settings.
        clock: tells when lines were lost, and when a file was rotated.
        worker: which of several workers this is; 0 for the only one.

    Raises:
        ConfigError: a sink cannot be opened.
    """
    usage = settings.usage
    assert usage is not None
    sinks: list[SinkThread] = []
    masks, marks = _read_masks(usage), None

    def add(name: str, sink: Sink, place: str, lost: Callable[[], int] = int) -> None:
        thread = SinkThread(
            name, sink, place=place, what="requests", max_waiting=MAX_WAITING, lost=lost
        )
        sinks.append(thread)

    # What may fail comes before the threads.
    stream = None if usage.redis is None else _read_stream(settings, usage.redis)
    plugin = None if usage.plugin is None else _open_plugin(usage.plugin)
    sender = open_log_sender(settings, _OTLP) if usage.otlp else None
    if usage.file is not None:
        path = name_worker_file(usage.file.path, worker)
        file, marks = open_usage_file(
            path, clock, max_bytes=usage.file.max_bytes, keep=usage.file.keep
        )
        _tell_lost(path, marks)
        add(FILE, file, str(path))
    if usage.redis is not None and stream is not None:
        from extauthz.counters.redis.calls import RedisCalls  # brings Redis's client

        calls = RedisCalls(stream, (f"{stream.prefix}{usage.redis.key}",), DecisionStreamError)
        add("redis", RedisStream(calls, max_length=usage.redis.max_length), f"{stream.address}")
    if sender is not None:
        from extauthz.telemetry.otlp_logs import USAGE, OtlpEvents

        add("otlp", OtlpEvents(sender, USAGE), "the collector", sender.count_lost)
    if usage.plugin is not None and plugin is not None:
        add("plugin", PluginSink(plugin), usage.plugin.factory)
    return UsageLog(sinks, masks, clock, marks)


def _tell_lost(path: Path, marks: Marks) -> None:
    if marks.lost:
        _log.error(
            "%s: the process before this one ended without a stop; up to %d lines are missing",
            path,
            marks.lost,
        )


def _read_masks(usage: UsageSettings) -> Masks:
    file = usage.hash_key_file
    return Masks(
        client_address=usage.client_address, key=None if file is None else read_secret_file(file)
    )


def _read_stream(settings: Settings, stream: UsageStreamSettings) -> RedisSettings:
    """How the Redis of the stream is reached.

    Raises:
        ConfigError: its settings contradict each other, or a file cannot be used.
    """
    access: RedisAccessSettings = settings.counters if stream.url is None else stream
    if access.url is None:
        message = "names no url, and the counters are in no Redis; add url"
        raise ConfigError([Problem(path="usage.redis", message=message)])
    check_redis(access, "counters" if stream.url is None else "usage.redis")
    return read_redis_settings(access)


def _find_factory(plugin: UsagePluginSettings) -> object:
    module, _, name = plugin.factory.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as exc:  # a module may raise anything when it is imported
        message = f"{plugin.factory} cannot be imported: {exc}"
        raise ConfigError([Problem(path="usage.plugin.factory", message=message)]) from exc


def _open_plugin(plugin: UsagePluginSettings) -> UsageSink:
    factory = _find_factory(plugin)
    try:
        sink: UsageSink = factory(plugin.options)  # type: ignore[operator]  # judged at once
        for name in ("write", "close"):
            if not callable(getattr(sink, name, None)):
                raise TypeError(f"it has no method {name}")  # noqa: TRY301
    except Exception as exc:
        message = f"{plugin.factory} gives no sink: {exc!r}"
        raise ConfigError([Problem(path="usage.plugin", message=message)]) from exc
    return sink
