"""What the variables OTEL_* say of traces, as far as the SDK and its exporters do not read them.

Source: OpenTelemetry specification, "Environment Variable Specification". As it asks, a value that
is unknown is warned of and taken as if it were not set; an empty one is not set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal

from extauthz.telemetry.trace_context import PROPAGATORS, ReadParent, Sampling

DEFAULT_RATIO: Final = 0.01
"""Of the calls about which no caller has decided, where neither settings nor variables say."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SAMPLERS: Final[Mapping[str, tuple[float | None, bool]]] = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}
"""The share by the sampler's name, None for ``OTEL_TRACES_SAMPLER_ARG``; whether a caller's word counts."""

Protocol = Literal["grpc", "http"]
_log = logging.getLogger(__name__)


def are_traces_off(environment: Mapping[str, str]) -> bool:
    """Whether a variable turns traces off, whatever else asks for them."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return True
    exporters = _read_list(environment, "OTEL_TRACES_EXPORTER")
    for unknown in (name for name in exporters if name not in {"otlp", "none"}):
        _warn("OTEL_TRACES_EXPORTER", unknown, "otlp and none")
    return "none" in exporters


def find_collector(environment: Mapping[str, str]) -> str:
    """The name of the variable that asks for traces to be sent; empty when none does."""
    if "otlp" in _read_list(environment, "OTEL_TRACES_EXPORTER"):
        return "OTEL_TRACES_EXPORTER"
    return next((name for name in _ENDPOINTS if environment.get(name)), "")


def read_protocol(environment: Mapping[str, str]) -> Protocol:
    """How spans are sent."""
    for name in _PROTOCOLS:
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
    """Which calls are traced; `ratio` is that of the settings, which goes first."""
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
    """How callers may tell of their span, the one that counts first. By default all that are known."""
    names = _read_list(environment, "OTEL_PROPAGATORS")
    if not names:
        return tuple(PROPAGATORS.values())
    for unknown in (name for name in names if name not in {*PROPAGATORS, "baggage", "none"}):
        _warn("OTEL_PROPAGATORS", unknown, ", ".join(PROPAGATORS))
    # Of propagators that run one after the other, the last has the last word.
    return tuple(PROPAGATORS[name] for name in reversed(names) if name in PROPAGATORS)


def _read_list(environment: Mapping[str, str], name: str) -> list[str]:
    return [part for item in environment.get(name, "").split(",") if (part := item.strip())]


def _warn(variable: str, value: str, known: str) -> None:
    _log.warning("%s: %r is not known here, and left aside; known are %s", variable, value, known)
