"""Single calls, from their spans."""

from __future__ import annotations

from typing import Final

from tests.dashboards.panels import Dashboard, Panel, Query, Row

_OURS: Final = 'resource.service.name = "extauthz"'


def _traces(title: str, description: str, spans: str) -> Panel:
    return Panel(
        title=title,
        description=description,
        unit="short",
        kind="table",
        width=12,
        queries=(Query(f"{{ {_OURS} && {spans} }}"),),
    )


TRACES: Final = Dashboard(
    name="traces",
    title="extauthz / Traces",
    description="Single calls, from a Tempo that gets the spans of the service.",
    source="tempo",
    rows=(
        Row(
            "Calls that were not allowed",
            (
                _traces(
                    "Denied",
                    "The reason and the level are attributes of the span.",
                    'span.extauthz.outcome = "deny"',
                ),
                _traces(
                    "Could not be decided",
                    "The child span with an error says what did not answer.",
                    'span.extauthz.reason = "unavailable"',
                ),
                _traces(
                    "Rate limited",
                    "extauthz.level says which limit had no room.",
                    'span.extauthz.reason = "rate_limited"',
                ),
                _traces(
                    "Failed calls",
                    "A denial is an answer, and no error: these calls had none.",
                    "status = error && kind = server",
                ),
            ),
        ),
        Row(
            "Calls that took long",
            (
                _traces(
                    "Decisions above 20 ms",
                    "Envoy waits for 200 ms unless its timeout says otherwise.",
                    "kind = server && duration > 20ms",
                ),
                _traces(
                    "Redis above 10 ms",
                    "A call waits for its batch, and for the one before it.",
                    'name = "take limits" && duration > 10ms',
                ),
                _traces(
                    "Introspection above 50 ms",
                    "An answer that is known takes microseconds.",
                    'name = "introspect token" && duration > 50ms',
                ),
                _traces(
                    "Keys above 50 ms",
                    "Decisions wait for keys only where none are known yet.",
                    'name = "find keys" && duration > 50ms',
                ),
            ),
        ),
    ),
)
