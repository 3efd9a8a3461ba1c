"""Only a Mixer that is known may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from extauthz.model.identity import Secret
from extauthz.serving.methods import Call, Metadata, RpcCode, RpcFailure
from extauthz.serving.tls import TlsFiles
from mixer_compat.callers import CallerRules, check_caller
from tests.keys import ec_key
from tests.mixer_compat.asking import REPORTNOTHING, Asking, GivenCaller, served

TOKENS = CallerRules(tokens=(Secret("new-token"), Secret("old-token")))
CA_KEY, SERVER_KEY, CLIENT_KEY = (ec_key(name=name) for name in ("ca", "server", "client"))
ISTIO = "spiffe://cluster.local/ns/istio-system/sa/istio-mixer-service-account"
URI = x509.UniformResourceIdentifier(ISTIO)


@pytest.mark.parametrize(
    ("metadata", "passes"),
    [
        ((("authorization", "new-token"),), True),
        ((("authorization", "Bearer old-token"),), True),
        ((("authorization", "bearer old-token"),), True),
        ((("authorization", "Bearer other"),), False),
        ((("authorization", "Bearer new-token,old-token"),), False),
        ((("authorization", ""),), False),
        ((("authorization", "Bearer "),), False),
        ((("authorization", "new-token"), ("authorization", "new-token")), False),
        ((("authorization", b"new-token"),), False),
        ((("x-api-key", "new-token"),), False),
        ((), False),
    ],
)
def test_a_mixer_presents_a_token(
    metadata: tuple[tuple[str, str | bytes], ...], *, passes: bool
) -> None:
    assert passes_as(a_call(metadata), TOKENS) is passes


@pytest.mark.parametrize(
    ("value", "passes"), [("new-token", True), ("Bearer new-token", False), ("", False)]
)
def test_a_header_of_its_own_holds_the_token_as_it_is(value: str, *, passes: bool) -> None:
    rules = CallerRules(tokens=TOKENS.tokens, header="x-api-key")
    assert passes_as(a_call((("x-api-key", value),)), rules) is passes


@pytest.mark.parametrize(
    ("uris", "passes"),
    [((ISTIO,), True), (("spiffe://x", ISTIO), True), (("x",), False), ((), False)],
)
def test_a_certificate_has_one_of_the_names(uris: tuple[str, ...], *, passes: bool) -> None:
    rules = CallerRules(uris=frozenset({ISTIO}))
    assert passes_as(a_call(uris=uris), rules) is passes


def test_everything_that_is_asked_for_has_to_be_there() -> None:
    rules = CallerRules(tokens=TOKENS.tokens, uris=frozenset({ISTIO}))
    token = (("authorization", "new-token"),)
    assert not passes_as(a_call(token), rules)
    assert not passes_as(a_call(uris=(ISTIO,)), rules)
    assert passes_as(a_call(token, (ISTIO,)), rules)


def a_call(metadata: Metadata = (), uris: tuple[str, ...] = ()) -> Call:
    return Call(caller=GivenCaller(metadata, uris))


def passes_as(call: Call, rules: CallerRules) -> bool:
    try:
        check_caller(call, rules)
    except RpcFailure as failure:
        return failure.code is not RpcCode.UNAUTHENTICATED
    return True


@pytest.mark.parametrize(
    "path",
    [row.path for row in Asking().adapter.methods()],
)
async def test_no_method_answers_an_unknown_caller(path: str) -> None:
    asking = Asking(callers=TOKENS)
    with pytest.raises(RpcFailure) as refused:
        await asking.ask(path, b"")
    assert refused.value.code is RpcCode.UNAUTHENTICATED
    assert asking.adapter.reports.waiting == 0


async def test_a_token_stands_in_the_calls_metadata() -> None:
    async with (
        served(Asking(callers=TOKENS)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(REPORTNOTHING)
        assert await call(b"", metadata=(("authorization", "Bearer new-token"),)) == b""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=(("authorization", "Bearer guessed"),))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def a_certificate(
    *names: x509.GeneralName,
    key: ec.EllipticCurvePrivateKey,
    signed_by: ec.EllipticCurvePrivateKey = CA_KEY,
    is_authority: bool = False,
) -> bytes:
    """PEM, from the authority "ca" unless another key signs it."""
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca" if is_authority else "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signed_by, hashes.SHA256()).public_bytes(Encoding.PEM)


def a_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


AUTHORITY = a_certificate(key=CA_KEY, is_authority=True)


@asynccontextmanager
async def a_mutual_door(folder: Path) -> AsyncIterator[str]:
    """A door that takes certificates with the name of Istio's Mixer; its address."""
    written = {
        "tls.crt": a_certificate(x509.DNSName("localhost"), URI, key=SERVER_KEY),
        "tls.key": a_pem(SERVER_KEY),
        "ca.crt": AUTHORITY,
    }
    for name, pem in written.items():
        (folder / name).write_bytes(pem)
    files = TlsFiles(cert=folder / "tls.crt", key=folder / "tls.key", client_ca=folder / "ca.crt")
    asking = Asking(callers=CallerRules(uris=frozenset({ISTIO})))
    async with served(asking, tls=files) as address:
        yield address


async def ask_with(address: str, *names: x509.GeneralName) -> grpc.StatusCode:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=AUTHORITY,
        private_key=a_pem(CLIENT_KEY),
        certificate_chain=a_certificate(*names, key=CLIENT_KEY),
    )
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(REPORTNOTHING)
        try:
            await call(b"", timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ((URI,), grpc.StatusCode.OK),
        ((x509.DNSName("mixer.example"), URI), grpc.StatusCode.OK),
        (
            (x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/web"),),
            grpc.StatusCode.UNAUTHENTICATED,
        ),
        ((x509.DNSName("mixer.example"),), grpc.StatusCode.UNAUTHENTICATED),
        ((), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_a_certificates_uri_is_read_from_the_connection(
    tmp_path: Path, names: tuple[x509.GeneralName, ...], code: grpc.StatusCode
) -> None:
    async with a_mutual_door(tmp_path) as address:
        assert await ask_with(address, *names) is code
