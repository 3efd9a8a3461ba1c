"""Draws sums of usage as an SVG: a bar for each group, in parts by class of status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

MAX_BARS: Final = 25
_ROW: Final = 24
_LABEL: Final = 320
_WIDTH: Final = 560
_COUNT: Final = 90
_TOP: Final = 46
_COLOURS: Final = {
    "2xx": "#3b7dd8",
    "3xx": "#8fb8ea",
    "4xx": "#e0a030",
    "5xx": "#c8453b",
    "none": "#8a8a8a",
}
"""Told apart in grey, too: from dark to light and back."""

Bar = tuple[str, dict[str, int]]
"""Its label, and the requests of each class of status."""


def find_class(status: str) -> str:
    """The class of a status: 2xx and so on; none for a request that ended without a response."""
    found = f"{status[:1]}xx"
    return found if found in _COLOURS and len(status) == 3 else "none"


def draw_bars(title: str, bars: Sequence[Bar]) -> str:
    """An SVG of the bars, the longest first, at most `MAX_BARS` of them."""
    longest = sorted(bars, key=lambda bar: -sum(bar[1].values()))
    shown = longest[:MAX_BARS]
    most = max((sum(parts.values()) for _, parts in shown), default=0) or 1
    width, height = _LABEL + _WIDTH + _COUNT, _TOP + _ROW * len(shown) + 14
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
        *_draw_legend(),
    ]
    for row, (label, parts) in enumerate(shown):
        drawn += _draw_bar(_TOP + row * _ROW, label, parts, most)
    return "\n".join([*drawn, "</svg>", ""])


def _draw_legend() -> list[str]:
    drawn = []
    for place, (name, colour) in enumerate(_COLOURS.items()):
        x = _LABEL + 70 * place
        drawn.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 14}" y="38" font-size="11">{name}</text>')
    return drawn


def _draw_bar(y: int, label: str, parts: dict[str, int], most: int) -> list[str]:
    shown = label if len(label) <= 44 else f"{label[:43]}…"
    drawn = [f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(shown)}</text>']
    x = float(_LABEL)
    for name, colour in _COLOURS.items():
        length = parts.get(name, 0) * _WIDTH / most
        if length:
            drawn.append(
                f'<rect x="{x:.1f}" y="{y + 3}" width="{max(length, 0.5):.1f}" height="16" '
                f'fill="{colour}"><title>{escape(label)}: {parts[name]:,} {name}</title></rect>'
            )
            x += length
    drawn.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{sum(parts.values()):,}</text>')
    return drawn
