"""The files of the live page, and the headers that they are served with.

The page is no secret: it has nothing of the service but the titles of reasons. What it shows it asks
of the API, which says who may. The browser holds it to its own files and to this listener.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from extauthz.answers.reasons import MEANINGS

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}

PAGE_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every file. Trusted types refuse text as HTML wherever a script would try it."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page."""

    body: bytes
    content_type: str


def read_page() -> dict[str, PageFile]:
    """The files by the paths that they are served at; the page itself is at ``/``."""
    page = {}
    for file in files(__package__).joinpath("static").iterdir():
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        page[path] = _type(file.name, file.read_bytes())
    titles = {reason.value: meaning.title for reason, meaning in MEANINGS.items()}
    page["/page/reasons.json"] = _type("reasons.json", json.dumps(titles).encode())
    return page


def _type(name: str, body: bytes) -> PageFile:
    return PageFile(body, _TYPES[name.rpartition(".")[2]])
