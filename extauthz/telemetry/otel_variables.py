"""Reads those variables OTEL_* for traces that the SDK and its exporters do not read themselves.

As the specification requires, an unknown value is logged as a warning and otherwise ignored, and an
empty value counts as absent.
Source: OpenTelemetry specification, "Environment Variable Specification".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal

from extauthz.telemetry.trace_context import PROPAGATORS, ReadParent, Sampling

DEFAULT_RATIO: Final = 0.01
"""The share of calls that are traced by default, of those about which no caller has decided."""

Signal = Literal["TRACES", "LOGS"]
"""What is sent, as it stands in the names of variables."""

_ENDPOINTS: Final[Mapping[Signal, tuple[str, ...]]] = {
    "TRACES": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    # That of all signals is set for traces, mostly, and not every collector takes logs.
    "LOGS": ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",),
}
"""The variables that turn a signal on."""
_SAMPLERS: Final[Mapping[str, tuple[float | None, bool]]] = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}
"""By a sampler's name: the share (None for ``OTEL_TRACES_SAMPLER_ARG``), and `follows_parent`."""

Protocol = Literal["grpc", "http"]
_log = logging.getLogger(__name__)


def is_off(environment: Mapping[str, str], signal: Signal) -> bool:
    """Whether a variable turns a signal off, also when others or the settings turn it on."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return True
    variable = f"OTEL_{signal}_EXPORTER"
    exporters = _read_list(environment, variable)
    for unknown in (name for name in exporters if name not in {"otlp", "none"}):
        _warn(variable, unknown, "otlp and none")
    return "none" in exporters


def find_collector(environment: Mapping[str, str], signal: Signal) -> str:
    """Finds the variable that turns sending a signal on.

    Returns:
        Its name; empty when there is none.
    """
    variable = f"OTEL_{signal}_EXPORTER"
    if "otlp" in _read_list(environment, variable):
        return variable
    return next((name for name in _ENDPOINTS[signal] if environment.get(name)), "")


def read_protocol(environment: Mapping[str, str], signal: Signal) -> Protocol:
    """The protocol for sending a signal: grpc unless a variable says http/protobuf."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        match environment.get(name, "").strip():
            case "grpc":
                return "grpc"
            case "http/protobuf":
                return "http"
            case "":
                pass
            case unknown:
                _warn(name, unknown, "grpc and http/protobuf")
    return "grpc"


def read_sampling(environment: Mapping[str, str], ratio: float | None) -> Sampling:
    """Reads which calls are traced.

    Args:
        environment: the environment's variables.
        ratio: that of the settings, which takes precedence; None when they have none.
    """
    if ratio is not None:
        return Sampling(ratio)
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not name:
        return Sampling(DEFAULT_RATIO)
    if name not in _SAMPLERS:
        _warn("OTEL_TRACES_SAMPLER", name, ", ".join(_SAMPLERS))
        return Sampling(DEFAULT_RATIO)
    share, follows_parent = _SAMPLERS[name]
    if share is None:
        share = _read_share(environment.get("OTEL_TRACES_SAMPLER_ARG", ""))
    return Sampling(share, follows_parent)


def _read_share(text: str) -> float:
    if not text:
        return 1.0
    with suppress(ValueError):
        share = float(text)
        if 0 <= share <= 1:
            return share
    _warn("OTEL_TRACES_SAMPLER_ARG", text, "numbers from 0 to 1")
    return 1.0


def read_propagators(environment: Mapping[str, str]) -> tuple[ReadParent, ...]:
    """Reads in which forms callers may send their span, in descending precedence.

    Returns:
        A reader for each form; all known forms by default.
    """
    names = _read_list(environment, "OTEL_PROPAGATORS")
    if not names:
        return tuple(PROPAGATORS.values())
    for unknown in (name for name in names if name not in {*PROPAGATORS, "baggage", "none"}):
        _warn("OTEL_PROPAGATORS", unknown, ", ".join(PROPAGATORS))
    # Propagators run one after the other, so the last one takes precedence.
    return tuple(PROPAGATORS[name] for name in reversed(names) if name in PROPAGATORS)


def _read_list(environment: Mapping[str, str], name: str) -> list[str]:
    return [part for item in environment.get(name, "").split(",") if (part := item.strip())]


def _warn(variable: str, value: str, known: str) -> None:
    _log.warning("%s: %r is unknown and is ignored; known values are %s", variable, value, known)
