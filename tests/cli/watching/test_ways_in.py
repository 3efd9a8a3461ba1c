"""Each way in which the admin listener can be opened: the page, ``top`` and live events."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import httpx2
import pytest

from extauthz.cli.watching.admin_tls import make_admin_tls
from extauthz.envoy.diagnosis.admin import EXTAUTHZ, AdminClient
from tests.certificates import MutualFiles, a_uri
from tests.commands import run_command
from tests.free_ports import find_free_port
from tests.serving.admin.watched_service import WatchedService, run_watched

TOKEN: Final = "a-token-that-nobody-guesses"
OPERATOR: Final = "spiffe://mesh.example/operator"


@dataclass(frozen=True, slots=True)
class Way:
    """How the listener is opened, and who may use it.

    Attributes:
        missing: what `top` says without options, or with the authorities alone.
        settings: further ones of the service.
    """

    is_socket: bool = False
    is_tls: bool = False
    is_mutual: bool = False
    has_token: bool = False
    address: str = "127.0.0.1"
    missing: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


NO_TOKEN: Final = "asks for a token; give --token-file"
NO_CERTIFICATE: Final = "asks for a client certificate; give --cert and --key"
NO_AUTHORITY: Final = (
    "its certificate is not good (unable to get local issuer certificate); name who has signed it "
    "with --ca"
)
WAYS: Final = {
    "loopback": Way(),
    "a socket": Way(is_socket=True),
    "HTTPS": Way(is_tls=True, missing={(): NO_AUTHORITY}),
    "mTLS": Way(is_tls=True, is_mutual=True, missing={("--ca",): NO_CERTIFICATE}),
    "mTLS on a socket": Way(
        is_tls=True, is_mutual=True, is_socket=True, missing={(): "does not answer with HTTP"}
    ),
    "everywhere, with a token": Way(address="0.0.0.0", has_token=True, missing={(): NO_TOKEN}),
    "everywhere, with mTLS or a token": Way(
        address="0.0.0.0",
        is_tls=True,
        is_mutual=True,
        has_token=True,
        missing={("--ca",): NO_TOKEN},
    ),
    "the host in Envoy": Way(settings={"server": {"host": "envoy"}}),
    "the host in Envoy, everywhere, with a token, over HTTPS": Way(
        address="0.0.0.0",
        is_tls=True,
        has_token=True,
        missing={("--ca",): NO_TOKEN},
        settings={"server": {"host": "envoy"}},
    ),
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A service whose listener was opened in some way.

    Attributes:
        url: as users write it.
        options: those of ``top`` that let it in.
    """

    service: WatchedService
    url: str
    options: Mapping[str, str]
    http: httpx2.Client


@contextmanager
def opened(way: Way, folder: Path) -> Iterator[Opened]:
    port, files = find_free_port(), MutualFiles(folder)
    admin: dict[str, Any] = {}
    options: dict[str, str] = {}
    headers = {}
    context = ssl.create_default_context(cadata=files.authority.pem.decode())
    context.check_hostname = not way.is_socket
    if way.has_token:
        (folder / "tokens").write_text(f"{TOKEN}\n")
        admin["token_file"] = str(folder / "tokens")
        if not way.is_mutual:
            options["--token-file"] = str(folder / "tokens")
            headers["authorization"] = f"Bearer {TOKEN}"
    if way.is_tls:
        admin["tls"] = {"cert": str(files.cert), "key": str(files.key)}
        options["--ca"] = str(files.client_ca)
    if way.is_mutual:
        admin["tls"]["client_ca"] = str(files.client_ca)
        admin["client_sans"] = [OPERATOR]
        leaf = files.authority.issue(a_uri(OPERATOR))
        shown = folder / "operator.pem"
        shown.write_bytes(leaf.cert + leaf.key)
        context.load_cert_chain(shown)
        options["--cert"] = str(shown)
    address = f"unix:{folder}/admin" if way.is_socket else f"{way.address}:{port}"
    scheme = "https" if way.is_tls else "http"
    url = address if way.is_socket else f"{scheme}://127.0.0.1:{port}"
    transport = httpx2.HTTPTransport(
        uds=f"{folder}/admin" if way.is_socket else None, verify=context
    )
    base = f"{scheme}://localhost" if way.is_socket else url
    with (
        run_watched(folder, listen={"admin": address}, admin=admin, **way.settings) as service,
        httpx2.Client(transport=transport, base_url=base, headers=headers, timeout=60) as http,
    ):
        yield Opened(service, url, options, http)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_page_top_and_live_events_work(way: Way, tmp_path: Path) -> None:
    with opened(way, tmp_path) as it:
        page = it.http.get("/")
        assert page.status_code == 200 and "extauthz" in page.text
        accept = {"accept": "text/event-stream"}
        with it.http.stream("GET", "/api/decisions", headers=accept) as events:
            assert events.status_code == 200
            lines = events.iter_lines()
            assert next(lines).startswith("retry:")
            it.service.ask("/pets/v1/7", "mobile")
            told = next(json.loads(line[6:]) for line in lines if line.startswith("data: {"))
        assert told["application"] == "mobile"
        ca = Path(it.options["--ca"]) if way.is_tls else None
        tls = make_admin_tls(it.url, ca=ca)
        client = AdminClient(it.url, option="--extauthz-admin", interface=EXTAUTHZ, tls=tls)
        assert client.get_json("/readyz")["status"] == "ready", "as doctor asks"
        done = ask(it, *it.options)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"Reasons of denials" in done.stdout
        for given, said in way.missing.items():
            done = ask(it, *given)
            assert (done.returncode, done.stdout) == (3, b"")
            assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1


def ask(it: Opened, *options: str) -> CompletedProcess[bytes]:
    """Runs ``top`` with some of the options."""
    words = [word for option in options for word in (option, it.options[option])]
    return run_command("top", "--once", "--admin", it.url, *words)


def test_the_wrong_scheme_is_said(tmp_path: Path) -> None:
    with opened(WAYS["HTTPS"], tmp_path) as it:
        plain = run_command("top", "--once", "--admin", it.url.replace("https:", "http:"))
        assert b"if it speaks TLS, write https://" in plain.stderr
    with opened(WAYS["loopback"], tmp_path) as it:
        ca = ("--ca", str(tmp_path / "ca.crt"))
        tls = run_command("top", "--once", "--admin", it.url.replace("http:", "https:"), *ca)
        assert b"does not speak TLS as expected" in tls.stderr and b"http://?" in tls.stderr


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        (
            "https://127.0.0.1:{port}",
            ("--ca", "missing.pem"),
            "missing.pem: cannot be used: no such",
        ),
        ("https://127.0.0.1:{port}", ("--ca", "empty.pem"), "empty.pem: cannot be used: no certif"),
        ("https://127.0.0.1:{port}", ("--cert", "empty.pem"), "empty.pem: cannot be used"),
        ("https://127.0.0.1:{port}", ("--key", "empty.pem"), "is a key without a certificate"),
        (
            "http://127.0.0.1:{port}",
            ("--ca", "empty.pem"),
            "is of no use for a listener without TLS",
        ),
        ("127.0.0.1:{port}", (), "is not a URL like http://127.0.0.1:9003, nor unix:/path"),
    ],
)
def test_files_and_addresses_that_are_no_good_are_said(
    url: str, options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").touch()
    address = url.format(port=find_free_port())
    done = run_command("top", "--admin", address, *options, folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, b"")
    assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1
