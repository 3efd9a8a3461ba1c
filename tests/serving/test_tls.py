from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from extauthz.errors import ConfigError
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.listen import read_listen_address
from extauthz.serving.tls import TlsFiles, TlsReloader, read_tls_files
from tests.certificates import renew_file
from tests.contracts.rpc_service import listen_on, make_doors


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    files = TlsFiles(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    renew(files)
    return files


def renew(files: TlsFiles) -> trustme.CA:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    renew_file(files.cert, leaf.cert_chain_pems[0].bytes())
    renew_file(files.key, leaf.private_key_pem.bytes())
    return authority


def test_reads_files_that_fit_together(files: TlsFiles, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    material = read_tls_files(replace(files, client_ca=tmp_path / "ca.crt"))
    assert material.cert_pem == files.cert.read_bytes()
    assert material.key_pem == files.key.read_bytes()
    assert material.client_ca_pem == (tmp_path / "ca.crt").read_bytes()


def test_a_key_never_shows(files: TlsFiles) -> None:
    assert repr(read_tls_files(files)) == "TlsMaterial(mutual=False)"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tls.crt", None, "cannot be read: No such file"),
        ("tls.crt", b"", "holds no PEM certificate"),
        ("tls.crt", b"-----BEGIN CERTIFICATE-----\nMII", "holds no PEM certificate"),
        ("tls.key", None, "cannot be read: No such file"),
        ("tls.key", b"half a ke", "holds no PEM private key"),
        ("ca.crt", None, "cannot be read: No such file"),
        ("ca.crt", b"no authority", "holds no PEM certificate"),
    ],
)
def test_names_the_file_that_is_not_usable(
    name: str, content: bytes | None, message: str, files: TlsFiles, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_tls_files(replace(files, client_ca=tmp_path / "ca.crt"))
    [problem] = caught.value.problems
    assert problem.file == str(tmp_path / name)
    assert message in problem.message


def test_names_every_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_tls_files(TlsFiles(cert=tmp_path / "a", key=tmp_path / "b", client_ca=tmp_path / "c"))
    assert [Path(problem.file).name for problem in caught.value.problems] == ["a", "b", "c"]


def test_refuses_another_certificates_key(files: TlsFiles) -> None:
    cert = files.cert.read_bytes()
    renew(files)
    files.cert.write_bytes(cert)
    with pytest.raises(ConfigError, match="is not the key of the first certificate"):
        read_tls_files(files)


def test_refuses_a_key_with_a_password(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), password=None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
    )
    with pytest.raises(ConfigError, match="is encrypted"):
        read_tls_files(files)


def test_a_reloader_finds_a_change_once(files: TlsFiles) -> None:
    reloader = TlsReloader(files)
    assert reloader.find_change() is None
    renew(files)
    changed = reloader.find_change()
    assert changed is not None and changed.cert_pem == files.cert.read_bytes()
    assert reloader.current is changed
    assert reloader.find_change() is None


def test_files_written_again_with_the_same_content_are_no_change(files: TlsFiles) -> None:
    reloader = TlsReloader(files)
    files.cert.write_bytes(files.cert.read_bytes())
    os.utime(files.cert, ns=(0, 0))
    assert reloader.find_change() is None


def test_finds_a_secret_that_kubernetes_swapped(tmp_path: Path) -> None:
    # A mounted secret's files are links through `..data`, which is moved as a whole.
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        renew(TlsFiles(cert=tmp_path / name / "tls.crt", key=tmp_path / name / "tls.key"))
    (tmp_path / "..data").symlink_to("old")
    files = TlsFiles(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    for path in (files.cert, files.key):
        path.symlink_to(Path("..data") / path.name)
    reloader = TlsReloader(files)

    (tmp_path / "..data_tmp").symlink_to("new")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    changed = reloader.find_change()
    assert changed is not None
    assert changed.cert_pem == (tmp_path / "new" / "tls.crt").read_bytes()


def test_files_that_are_not_usable_are_said_once_and_the_old_ones_stay(
    files: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = TlsReloader(files)
    old = reloader.current
    files.key.unlink()
    assert [reloader.find_change() for _ in range(3)] == [None, None, None]
    assert reloader.current is old
    [record] = caplog.records
    assert record.levelno == logging.ERROR and str(files.key) in record.getMessage()

    renew(files)
    assert reloader.find_change() is not None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_speaks_tls_from_1_2(version: ssl.TLSVersion, files: TlsFiles) -> None:
    context = a_context(renew(files))
    context.minimum_version = context.maximum_version = version
    assert await handshake(files, context) == f"TLSv1.{version.name[-1]}"


async def test_refuses_tls_1_1(files: TlsFiles) -> None:
    context = a_context(renew(files))
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # else our own side would refuse it first
    with pytest.deprecated_call():
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.deprecated_call():
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    # gRPC hangs up without an alert. A refusal of our own would be a plain SSLError.
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        await handshake(files, context)


def a_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    return context


async def handshake(files: TlsFiles, context: ssl.SSLContext) -> str | None:
    """The version of TLS that a host with these files agrees to."""
    host = GrpcioHost(make_doors(), listen_on(read_listen_address("127.0.0.1:0"), tls=files))
    await host.start()
    try:
        return await asyncio.to_thread(connect, host.addresses[0].port, context)
    finally:
        await host.stop(0)


def connect(port: int, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return secured.version()
