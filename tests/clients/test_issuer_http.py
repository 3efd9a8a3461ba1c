"""Whom we trust to vouch for an issuer, through which proxy it is asked, and what is said of it."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from extauthz.app.core import open_core
from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp, warn_of_unused_proxy
from extauthz.clients.jwks import JwksKeySource
from extauthz.errors import IntrospectionError, KeySourceError
from extauthz.model.decision import Deny
from extauthz.model.identity import Secret
from extauthz.model.issuers import IntrospectionEndpoint, KeyLocation
from extauthz.settings.reading import read_settings
from tests.builders import FakeClock, a_request
from tests.certificates import LOCAL, Authority
from tests.clients.loopback import Answer, LoopbackServer, json_answer
from tests.keys import ISSUER, a_jwks, an_issuer, claims_of, sign_jws

OURS, OTHERS = Authority("ours"), Authority("others")
HERE = x509.IPAddress(IPv4Address("127.0.0.1"))
JWKS = Answer(body=a_jwks().encode())


@asynccontextmanager
async def serve_https(
    folder: Path, authority: Authority = OURS, *names: x509.GeneralName
) -> AsyncIterator[LoopbackServer]:
    """A server whose certificate the authority signed; for its address when no name is given."""
    leaf = authority.issue(*(names or (HERE,)))
    (folder / "tls.crt").write_bytes(leaf.cert)
    (folder / "tls.key").write_bytes(leaf.key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    async with LoopbackServer(tls) as server:
        server.answers["/jwks"] = JWKS
        server.answers["/introspect"] = json_answer({"active": True})
        yield server


async def fetch(url: str, ca: str = "", **how: Any) -> str:
    """How a fetch of keys went: "good", or what is said of it."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(IssuerHttp(**how))
        source = JwksKeySource(http, FakeClock())
        stack.push_async_callback(source.close)
        try:
            issuer = an_issuer(keys=KeyLocation(jwks_url=f"{url}/jwks"), ca=ca)
            await source.find_keys(issuer, "k1")
        except KeySourceError as error:
            return str(error)
        return "good"


async def test_an_issuer_may_have_an_authority_of_its_own(tmp_path: Path) -> None:
    async with serve_https(tmp_path) as server:
        assert await fetch(server.url, OURS.pem.decode()) == "good"
        both = OTHERS.pem.decode() + OURS.pem.decode()
        assert await fetch(server.url, both) == "good"
        assert await fetch(f"https://127.0.0.1:{server.port}", both) == "good"
        # Whom the catalog names need not be at the end of the chain.
        assert await fetch(server.url, (tmp_path / "tls.crt").read_text()) == "good"


async def test_introspection_trusts_the_same_authority_and_no_other(tmp_path: Path) -> None:
    async with serve_https(tmp_path) as server, IssuerHttp() as http:
        client = IntrospectionClient(http, FakeClock())
        endpoint = IntrospectionEndpoint(
            url=f"{server.url}/introspect", client_id="gw", client_secret=Secret("hunter2")
        )
        ours = an_issuer(introspection=endpoint, ca=OURS.pem.decode())
        assert await client.introspect(ours, Secret("t1")) == {"active": True}
        others = an_issuer(introspection=endpoint, ca=OTHERS.pem.decode())
        with pytest.raises(IntrospectionError, match=r"tls\.ca of the issuer does not hold"):
            await client.introspect(others, Secret("t2"))
        await client.close()
        assert len(server.asked) == 1  # no secret goes to whom we do not trust


async def test_the_systems_authorities_are_those_that_openssl_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_bytes(OURS.pem)
    async with serve_https(tmp_path) as server:
        assert "unable to get local issuer certificate; name the authority" in await fetch(
            server.url
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert await fetch(server.url) == "good"
        # What the catalog names stands instead of the system's.
        assert "does not hold" in await fetch(server.url, OTHERS.pem.decode())


async def test_what_went_wrong_is_said_with_what_to_do(tmp_path: Path) -> None:
    ca = OURS.pem.decode()
    async with serve_https(tmp_path) as server:
        assert "tls.ca of the issuer, or add it to the system's" in await fetch(server.url)
        assert "tls.ca of the issuer does not hold" in await fetch(server.url, OTHERS.pem.decode())
    async with serve_https(tmp_path, OURS, LOCAL) as server:
        said = await fetch(server.url, ca)
        assert "its certificate was not accepted: IP address mismatch" in said
        assert "tls.ca" not in said
    async with LoopbackServer() as server:
        refused = server.url
    assert (await fetch(refused)).endswith("connection refused")
    assert (await fetch("http://nowhere.invalid")).endswith("its host's name cannot be resolved")


async def test_cookies_of_issuers_are_not_kept() -> None:
    issuer = an_issuer()
    async with LoopbackServer() as server, IssuerHttp() as http:
        server.answers["/jwks"] = Answer(headers={"set-cookie": "session=abc; Path=/"})
        for _ in range(2):
            url = f"{server.url}/jwks"
            await http.find_client(issuer, url).get(url)
        assert ["cookie" in asked.headers for asked in server.asked] == [False, False]


async def test_a_server_that_speaks_no_tls_is_said_to() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    said = await fetch(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()
    assert "TLS failed: WRONG_VERSION_NUMBER" in said


async def test_an_issuer_is_asked_through_the_proxy_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with LoopbackServer() as proxy, LoopbackServer() as issuer:
        proxy.answers["http://idp.example/jwks"] = JWKS
        issuer.answers["/jwks"] = JWKS
        url = proxy.url.replace("http://", "http://us:hunter2@")
        assert await fetch("http://idp.example", proxy=url) == "good"
        basic = base64.b64encode(b"us:hunter2").decode()
        assert proxy.asked[0].headers["proxy-authorization"] == f"Basic {basic}"
        assert await fetch(issuer.url, proxy=url, no_proxy=("127.0.0.1",)) == "good"
        assert (len(proxy.asked), len(issuer.asked)) == (1, 1)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert await fetch(issuer.url) == "good"
        assert (len(proxy.asked), len(issuer.asked)) == (1, 2)


async def test_a_proxy_carries_https_and_does_not_see_into_it(tmp_path: Path) -> None:
    async with serve_https(tmp_path, OURS, x509.DNSName("idp.example")) as server:

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"CONNECT idp.example:443 HTTP/1.1\r\n")
            there = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Fine\r\n\r\n")
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        proxy = await asyncio.start_server(carry, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        assert await fetch("https://idp.example", OURS.pem.decode(), proxy=url) == "good"
        assert "does not hold" in await fetch("https://idp.example", OTHERS.pem.decode(), proxy=url)
        proxy.close()
        await proxy.wait_closed()


async def test_a_proxy_that_refuses_is_named_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with LoopbackServer() as proxy:
        proxy.answers["idp.example:443"] = Answer(status=407)
        url = proxy.url.replace("http://", "http://us:hunter2@")
        with caplog.at_level(logging.DEBUG):
            said = await fetch("https://idp.example", proxy=url)
    assert "the proxy of the settings (http.proxy) refused: 407" in said
    assert "hunter2" not in said + caplog.text


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("idp.example", "idp.example", True),
        ("idp.example", "IDP.example", True),
        ("idp.example", "a.idp.example", True),
        (".idp.example", "idp.example", True),
        ("idp.example", "notidp.example", False),
        ("idp.example", "idp.example.org", False),
        ("::1", "[::1]", True),
        ("127.0.0.1", "127.0.0.10", False),
    ],
)
async def test_hosts_without_proxy_are_they_and_those_below_them(
    no_proxy: str, host: str, *, direct: bool
) -> None:
    async with IssuerHttp(proxy="http://127.0.0.1:9", no_proxy=[no_proxy]) as http:
        own = http.find_client(an_issuer(), f"https://{host}/jwks")
        assert (
            own is http.find_client(an_issuer(), f"https://{no_proxy_url(no_proxy)}/")
        ) is direct


def no_proxy_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lstrip(".")


async def test_the_service_goes_by_its_catalog_and_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ours.pem").write_bytes(OURS.pem)
    (tmp_path / "others.pem").write_bytes(OTHERS.pem)
    token = sign_jws({"alg": "RS256", "kid": "k1"}, {**claims_of(), "exp": 32_503_680_000})
    async with serve_https(tmp_path) as server, LoopbackServer() as proxy:
        outcomes = []
        for ca, settings in (
            ("ours.pem", {}),
            ("others.pem", {}),
            ("ours.pem", {"proxy": proxy.url, "no_proxy": []}),
        ):
            issuer = {"issuer": ISSUER, "audiences": ["httpbin"], "tls": {"ca": ca}}
            api = {
                "name": "A",
                "version": "1",
                "context": "/a",
                "security": ["jwt"],
                "subscription": "none",
                "resources": [{"methods": ["GET"], "path": "/*"}],
            }
            catalog = {"apis": [api], "issuers": [{**issuer, "jwks_url": f"{server.url}/jwks"}]}
            (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(catalog))
            written = {"catalog": {"files": ["catalog.yaml"]}, "http": settings}
            (tmp_path / "extauthz.yaml").write_text(yaml.safe_dump(written))
            async with open_core(read_settings(tmp_path / "extauthz.yaml", {})) as core:
                headers = {"authorization": f"Bearer {token}"}
                decision = await core.pipeline.decide(a_request("/a/1/x", headers=headers))
            outcomes.append(decision.reason.value if isinstance(decision, Deny) else "allowed")
    assert outcomes == ["allowed", "unavailable", "unavailable"]
    assert "tls.ca of the issuer does not hold the authority that signed it" in caplog.text
    assert [asked.method for asked in proxy.asked] == ["CONNECT"]
    assert "the proxy of the settings (http.proxy) refused: 404" in caplog.text


def test_a_proxy_in_the_environment_is_said_to_be_unused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        warn_of_unused_proxy({"HTTP_PROXY": ""})
        assert caplog.text == ""
        warn_of_unused_proxy({"HTTPS_PROXY": "http://us:hunter2@proxy:1", "HTTP_PROXY": "x"})
    assert "HTTPS_PROXY is not used" in caplog.text
    assert "hunter2" not in caplog.text
