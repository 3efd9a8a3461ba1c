"""What is made for docs/explanation/architecture.md: the picture of the floors, and the packages.

``python -m tests.architecture_page`` writes both anew, from the contracts in pyproject.toml, the
docstrings of the packages and the lists of the page, which say where a request comes by. With
``--check`` it only compares.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "floors.svg"
PROGRAM = ("extauthz", "mixer_compat")
ENVOYS_DOOR = "extauthz.envoy"
REWRITE = "not what the code gives; run python -m tests.architecture_page"

_CHARACTER, _HEIGHT, _GAP, _MARGIN, _TITLE = 7.3, 26, 6, 9, 20
_WIDTH = 860
_TABLE = re.compile(r"(?<=<!-- packages -->\n).*?(?=<!-- end of packages -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Stop:
    """A function that a request comes by, as an item of the page names it."""

    file: str
    function: str


def read_way(heading: str) -> list[Stop]:
    """The numbered items below a heading of the page: a function in a file each."""
    (section,) = re.findall(
        rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    items = re.findall(r"^\d+\. `([^`]+)` in `([^`]+)`: ", section, re.MULTILINE)
    return [Stop(file, function) for function, file in items]


def find_function(stop: Stop) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The definition of a function or of a class's method; None where there is none."""
    body: Sequence[ast.stmt] = ast.parse((ROOT / stop.file).read_text()).body
    *classes, name = stop.function.split(".")
    for wanted in classes:
        body = [
            inner
            for node in body
            if isinstance(node, ast.ClassDef) and node.name == wanted
            for inner in node.body
        ]
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    return None


# Packages


def write_packages() -> str:
    """The rows of the table of packages, and of the modules beside them."""
    rows = [f"| `{name}` | {' '.join(text.split())} |" for name, text in _list_packages()]
    return "".join(f"{row}\n" for row in ["| package | what is in it |", "|---|---|", *rows])


def _list_packages() -> Iterator[tuple[str, str]]:
    for root in PROGRAM:
        for path in sorted((ROOT / root).rglob("__init__.py")):
            yield f"{path.parent.relative_to(ROOT).as_posix()}/", _read_first_paragraph(path)
        for path in sorted((ROOT / root).glob("*.py")):
            if root == "extauthz" and not path.name.startswith("__"):
                yield path.relative_to(ROOT).as_posix(), _read_first_paragraph(path)


def _read_first_paragraph(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n\n")[0]


def put_packages(page: str) -> str:
    """The page with the table of packages as it ought to be."""
    return _TABLE.sub(lambda _: write_packages(), page)


# The picture


@dataclass(frozen=True, slots=True)
class Box:
    """A package or module, and the floors in it, from the top. `touches` the box before it."""

    name: str
    floors: tuple[tuple[Box, ...], ...] = ()
    touches: bool = False

    @property
    def title(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def width(self) -> float:
        widest = max((_find_width(floor) for floor in self.floors), default=0.0)
        return max(len(self.title) * _CHARACTER, widest) + 2 * _MARGIN

    @property
    def height(self) -> float:
        if not self.floors:
            return _HEIGHT
        return _TITLE + sum(_find_height(floor) + _GAP for floor in self.floors) + _MARGIN - _GAP


def _find_width(floor: tuple[Box, ...]) -> float:
    return sum(box.width for box in floor) + _GAP * sum(not box.touches for box in floor[1:])


def _find_height(floor: tuple[Box, ...]) -> float:
    return max(box.height for box in floor)


def read_floors() -> tuple[tuple[Box, ...], ...]:
    """The floors of the whole program, as the import contracts say them.

    The package of Mixer's door has no floor in the first contract, but one that forbids it what
    stands above it: so it stands beside Envoy's door, which is the lowest of those.
    """
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = document["tool"]["importlinter"]["contracts"]
    layers = {
        container: contract["layers"]
        for contract in contracts
        if contract["type"] == "layers"
        for container in contract["containers"]
    }
    return tuple(
        (*floor, Box("mixer_compat", _floors_in("mixer_compat", layers)))
        if any(box.name == ENVOYS_DOOR for box in floor)
        else floor
        for floor in _floors_in("extauthz", layers)
    )


def _floors_in(container: str, layers: dict[str, list[str]]) -> tuple[tuple[Box, ...], ...]:
    if container not in layers:
        below = sorted(name for name in layers if name.rpartition(".")[0] == container)
        return (tuple(Box(name, _floors_in(name, layers)) for name in below),) if below else ()
    floors = []
    for layer in layers[container]:
        boxes = []
        for sign, name in re.findall(r"(?:^|([|:]))\s*(\w+)\s*", layer):
            full = f"{container}.{name}"
            boxes.append(Box(full, _floors_in(full, layers), touches=sign == ":"))
        floors.append(tuple(boxes))
    return tuple(floors)


def draw() -> str:
    """The picture as SVG: floors from the top, packages with floors of their own inside."""
    floors = read_floors()
    lines: list[str] = []
    y = float(_GAP)
    for floor in floors:
        lines += _draw_floor(floor, _GAP, y, _WIDTH - 2 * _GAP, _find_passed(), depth=0)
        y += _find_height(floor) + _GAP
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y:.0f}" '
        f'viewBox="0 0 {_WIDTH} {y:.0f}" role="img" font-family="monospace" font-size="12">',
        "<title>The floors of the program: each may import what stands below it</title>",
        f'<rect width="{_WIDTH}" height="{y:.0f}" fill="#ffffff"/>',
        *lines,
        "</svg>\n",
    ])  # fmt: skip


def _find_passed() -> frozenset[str]:
    """The modules that a request comes by, with dots."""
    return frozenset(
        stop.file.removesuffix(".py").replace("/", ".")
        for heading in re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE)
        for stop in read_way(heading)
    )


def _is_passed(box: Box, passed: frozenset[str]) -> bool:
    """Whether a request comes by modules of the box that are in no box inside it."""
    inside = [inner for floor in box.floors for inner in floor]
    return any(
        f"{module}.".startswith(f"{box.name}.")
        and not any(f"{module}.".startswith(f"{inner.name}.") for inner in inside)
        for module in passed
    )


def _draw_floor(
    floor: tuple[Box, ...], x: float, y: float, width: float, passed: frozenset[str], *, depth: int
) -> Iterator[str]:
    spare = (width - _find_width(floor)) / len(floor)
    height = _find_height(floor)
    for number, box in enumerate(floor):
        if number and not box.touches:
            x += _GAP
        yield from _draw_box(box, x, y, box.width + spare, height, passed, depth=depth)
        x += box.width + spare


def _draw_box(
    box: Box,
    x: float,
    y: float,
    width: float,
    height: float,
    passed: frozenset[str],
    *,
    depth: int,
) -> Iterator[str]:
    is_passed = _is_passed(box, passed)
    colours = ("#cfe2f3", "#4a7fb0") if is_passed else ("#f7f7f7", "#b0b0b0")
    yield (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" '
        f'fill="{colours[0]}" stroke="{colours[1]}"/>'
    )
    text_y = y + (14.5 if box.floors else height / 2 + 4)
    weight = "" if depth else ' font-weight="bold"'
    yield (
        f'<text x="{x + width / 2:.1f}" y="{text_y:.1f}" text-anchor="middle"{weight}>'
        f"{escape(box.title)}</text>"
    )
    y += _TITLE
    for floor in box.floors:
        yield from _draw_floor(floor, x + _MARGIN, y, width - 2 * _MARGIN, passed, depth=depth + 1)
        y += _find_height(floor) + _GAP


def main(arguments: Sequence[str]) -> int:
    """Writes both, or with ``--check`` says which differs; the exit code is 1 then."""
    made = {PAGE: put_packages(PAGE.read_text()), PICTURE: draw()}
    differing = [path for path, text in made.items() if path.read_text() != text]
    for path in differing:
        if "--check" in arguments:
            sys.stderr.write(f"{path.relative_to(ROOT)}: {REWRITE}\n")
        else:
            path.write_text(made[path])
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
