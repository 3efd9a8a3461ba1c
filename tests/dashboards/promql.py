"""Pieces of PromQL that dashboards share."""

from __future__ import annotations

from typing import Final

DURATION: Final = "extauthz_decision_duration_seconds"


def rate(metric: str, by: str = "", matchers: str = "") -> str:
    """The sum of a counter's rates, by labels."""
    selected = f"SELECTED, {matchers}" if matchers else "SELECTED"
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{selected}}}[$__rate_interval]))"


def top(text: str) -> str:
    return f"topk(10, {text})"


def share(part: str, whole: str) -> str:
    """A share that is 0, and not missing, where there is no part."""
    return f"({part} or vector(0)) / {whole}"


def quantile(quantile: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile:g}, {rate(f'{metric}_bucket', labels)})"


ALL_DECISIONS: Final = rate("extauthz_decisions_total")
"""All decisions, each second."""
