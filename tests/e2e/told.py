"""Keeps what the services of a whole run tell, and searches it for what must never be there.

Each service writes its log at level debug. Those that the tests share, which get most of a run's
requests, also write every decision into a file, send all of their spans to one collector, and are
asked for each page of the admin listener before they end. With what clients saw of refusals, that is
every form in which a service tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2

from tests.telemetry.collectors import Collector, run_grpc_collector

USERS: Final = frozenset({"carol", "dave", "erin"})
"""Whose tokens and certificates are used."""
_PAGES: Final = ("/metrics", "/readyz")
"""Beside those of the API, which its own document names."""


@dataclass(slots=True)
class Told:
    """What was told so far.

    Attributes:
        logs: files of the services' logs.
        files: files with decisions and pages.
        answers: refusals as clients saw them.
    """

    logs: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    collector: Collector = field(default_factory=Collector)

    @classmethod
    def start(cls, stack: ExitStack) -> Told:
        """Opens the collector until the stack ends."""
        return cls(collector=stack.enter_context(run_grpc_collector()))

    def settings(self, folder: Path) -> dict[str, Any]:
        """What makes a service tell everything."""
        decisions = folder / "decisions.jsonl"
        self.files.append(decisions)
        return {
            "listen": {"admin": f"unix:{folder}/admin"},
            "log": {"decisions": {"file": str(decisions)}},
            "telemetry": {"otlp": {"endpoint": self.collector.url}, "trace_ratio": 1},
        }

    def keep_pages(self, folder: Path) -> None:
        """Asks a service for all that its admin listener shows, if it still answers."""
        file = folder / "pages.txt"
        transport = httpx2.HTTPTransport(uds=f"{folder}/admin")
        with (
            suppress(httpx2.HTTPError, OSError),
            httpx2.Client(transport=transport, base_url="http://localhost", timeout=60) as client,
            file.open("wb") as pages,
        ):
            self.files.append(file)
            api: Iterable[str] = ()
            document = client.get("/api/openapi.json")
            if document.status_code == httpx2.codes.OK:
                paths = document.json()["paths"]
                api = [name for name, methods in paths.items() if "get" in methods]
            for page in (*_PAGES, *api):
                pages.write(client.get(page).content)

    def keep_answer(self, answer: httpx2.Response) -> None:
        """Keeps a refusal; a hook of a client's."""
        if not answer.is_success:
            answer.read()
            self.answers.append(repr((answer.headers.multi_items(), answer.text)).encode())

    def keep_error(self, error: grpc.RpcError) -> None:
        """Keeps a refusal of a gRPC call."""
        if isinstance(error, grpc.Call):
            self.answers.append(repr((error.details(), error.trailing_metadata())).encode())

    def find_leaks(self, secrets: Iterable[str], users: Iterable[str] = ()) -> list[str]:
        """Where a secret is told, or a user but in a log; and tracebacks in logs."""
        needles = [secret.encode() for secret in secrets]
        logs = set(map(str, self.logs))
        found = [
            f"{file}:{number}: {line}"
            for file in self.logs
            for number, line in enumerate(file.read_text().splitlines(), start=1)
            if line.startswith("Traceback")
        ]
        for place, text in self._list().items():
            found += [f"{needle.decode()} in {place}" for needle in needles if needle in text]
            if place not in logs:
                found += [f"{user} in {place}" for user in users if user.encode() in text]
        return found

    def _list(self) -> Mapping[str, bytes]:
        spans = b"\n".join(it.span.SerializeToString() for it in self.collector.spans())
        told = {"spans": spans, "answers": b"\n".join(self.answers)}
        return told | {str(file): text for file, text in self._read()}

    def _read(self) -> Iterator[tuple[Path, bytes]]:
        for file in (*self.logs, *self.files):
            with suppress(FileNotFoundError):  # a service that a test kept from starting
                yield file, file.read_bytes()
