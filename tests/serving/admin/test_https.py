"""HTTPS on the admin listener, with client certificates for the API and none for probes."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from extauthz.serving.admin.access import Access, AccessRules
from extauthz.serving.admin.api import AdminApi
from extauthz.serving.admin.listener import AdminListener
from extauthz.serving.admin.readiness import ReadyCheck
from extauthz.serving.https import make_context
from extauthz.serving.listen import read_listen_address
from tests.certificates import Authority, Leaf, MutualFiles, a_uri, renew_file
from tests.serving.admin.serving_api import (
    PATIENCE_S,
    Answered,
    Endpoints,
    read_answer,
    write_request,
)

OPERATOR = "spiffe://example/operator"
RULES = AccessRules(is_local=False, has_client_ca=True, client_sans=frozenset({OPERATOR, "ops"}))


@pytest.fixture
def files(tmp_path: Path) -> MutualFiles:
    return MutualFiles(tmp_path)


async def no_checks() -> list[ReadyCheck]:
    return []


async def no_metrics() -> tuple[bytes, str]:
    return b"", "text/plain"


@asynccontextmanager
async def serving_https(files: MutualFiles, rules: AccessRules = RULES) -> AsyncIterator[int]:
    """The port of a listener with these files."""
    api = AdminApi(Endpoints().table(), Access(rules), version="1")
    listener = AdminListener(
        read_listen_address("127.0.0.1:0"),
        checks=no_checks,
        metrics=no_metrics,
        api=api,
        tls=make_context(files.let_in()),
    )
    await listener.start()
    try:
        yield listener.port
    finally:
        await listener.stop()


def show(folder: Path, authority: Authority, leaf: Leaf | None = None) -> ssl.SSLContext:
    """A client that trusts the authority, and shows the certificate if there is one."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    # The authorities of tests are as plain as those of many users.
    context.verify_flags = ssl.VerifyFlags.VERIFY_DEFAULT
    if leaf is not None:
        renew_file(folder / "client.pem", leaf.cert + leaf.key)
        context.load_cert_chain(folder / "client.pem")
    return context


async def send(port: int, client: ssl.SSLContext, target: str = "/api/echo") -> Answered:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    try:
        writer.write(write_request(target))
        async with asyncio.timeout(PATIENCE_S):
            return await read_answer(reader)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("names", "caller"),
    [
        ((a_uri(OPERATOR),), OPERATOR),
        ((a_uri("spiffe://example/other"), a_uri(OPERATOR)), OPERATOR),
        ((x509.DNSName("ops"),), "ops"),
        ((a_uri("spiffe://example/operator/x"),), None),
        ((x509.DNSName("ops.example"),), None),
        ((x509.RFC822Name("ops"),), None),
        ((), None),
    ],
)
async def test_a_certificate_with_a_name_that_is_listed_lets_in(
    names: tuple[x509.GeneralName, ...], caller: str | None, files: MutualFiles, tmp_path: Path
) -> None:
    async with serving_https(files) as port:
        client = show(tmp_path, files.authority, files.authority.issue(*names))
        answer = await send(port, client)
        if caller is None:
            assert (answer.status, answer.code) == (403, "certificate_needed")
        else:
            assert (answer.status, answer.json["caller"]) == (200, caller)


async def test_any_certificate_of_the_authority_lets_in_where_no_name_is_listed(
    files: MutualFiles, tmp_path: Path
) -> None:
    async with serving_https(files, replace(RULES, client_sans=frozenset())) as port:
        client = show(tmp_path, files.authority, files.authority.issue())
        assert (await send(port, client)).json["caller"] == "a certificate without a name"


async def test_probes_need_no_certificate_and_the_api_does(
    files: MutualFiles, tmp_path: Path
) -> None:
    async with serving_https(files) as port:
        client = show(tmp_path, files.authority)
        assert (await send(port, client, "/healthz")).status == 200
        answer = await send(port, client)
        assert (answer.status, answer.code) == (403, "certificate_needed")


async def test_a_certificate_of_another_authority_ends_the_connection_and_logs_nothing(
    files: MutualFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_https(files) as port:
        stranger = show(tmp_path, files.authority, Authority("stranger").issue(a_uri(OPERATOR)))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await send(port, stranger)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(write_request("/healthz"))  # not TLS
        async with asyncio.timeout(PATIENCE_S):
            assert b"200" not in await reader.read()
        writer.close()
        assert (await send(port, show(tmp_path, files.authority), "/healthz")).status == 200
    assert [it for it in caplog.records if it.levelno >= logging.WARNING] == []


async def test_renewed_files_are_used_by_the_next_connection(
    files: MutualFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_https(files) as port:
        first = show(tmp_path, files.authority, files.authority.issue(a_uri(OPERATOR)))
        assert (await send(port, first)).status == 200
        files.renew(Authority("second"))
        second = show(tmp_path, files.authority, files.authority.issue(a_uri(OPERATOR)))
        assert (await send(port, second)).status == 200
        # The first authority's certificates are good no longer, at either end.
        mixed = show(tmp_path, files.authority, Authority("first").issue(a_uri(OPERATOR)))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await send(port, mixed)
        renew_file(files.key, b"half a key")
        assert (await send(port, second)).status == 200
    errors = [it.getMessage() for it in caplog.records if it.levelno >= logging.ERROR]
    assert len(errors) == 1 and "the old ones stay" in errors[0]


async def test_a_handshake_has_its_time(
    files: MutualFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.serving.admin.listener.HANDSHAKE_S", 0.1)
    async with serving_https(files) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
