"""What every host must do with the names that clients' certificates must have."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from cryptography import x509

from extauthz.serving.tls import TlsFiles
from tests.certificates import LOCAL, Authority, MutualFiles, a_uri
from tests.contracts.rpc_caller import LOOPBACK, Caller, Code, Connect, Serve, Status, failure_of
from tests.contracts.rpc_service import OTHER_SERVICE, SERVICE, listen_for_other

ISTIO = "spiffe://cluster.local/ns/istio-system/sa/istio-mixer-service-account"
OTHER = "spiffe://cluster.local/ns/istio-system/sa/other"
FOREIGN = "spiffe://cluster.local/ns/default/sa/web"
REFUSED = (Code.UNAVAILABLE, Code.UNAUTHENTICATED)
"""Of a handshake, and of a call."""


@pytest.fixture
def files(tmp_path: Path) -> MutualFiles:
    return MutualFiles(tmp_path)


def strangers(files: MutualFiles) -> list[grpc.ChannelCredentials]:
    names: list[tuple[x509.GeneralName, ...]] = [
        (a_uri(FOREIGN),),
        (a_uri(f"{ISTIO}/more"),),
        (a_uri(ISTIO[:-1]),),
        (a_uri(ISTIO.upper()),),
        (LOCAL,),
        (),
    ]
    return [files.show_nothing(), *(files.show(*each) for each in names)]


async def code_of(caller: Caller, name: str = "Echo") -> grpc.StatusCode:
    return (await failure_of(caller.start(name)))[0]


@pytest.mark.parametrize(
    "names", [(a_uri(ISTIO),), (a_uri(OTHER),), (LOCAL, a_uri(FOREIGN), a_uri(ISTIO))]
)
async def test_a_certificate_with_one_of_the_uris_is_let_in(
    names: tuple[x509.GeneralName, ...], files: MutualFiles, serve: Serve, connect: Connect
) -> None:
    host = await serve(tls=files.let_in(ISTIO, OTHER))
    assert await connect(host, files.show(*names)).ask("Echo", "a") == "a"


async def test_everybody_else_is_refused_and_still_is_after_a_renewal(
    files: MutualFiles, serve: Serve, connect: Connect
) -> None:
    host = await serve(tls=files.let_in(ISTIO))
    before = files.show(a_uri(ISTIO))
    assert await connect(host, before).ask("Echo", "a") == "a"
    for credentials in strangers(files):
        assert await code_of(connect(host, credentials)) in REFUSED

    files.renew(Authority("second"))

    known = connect(host, files.show(a_uri(ISTIO)))
    assert await known.ask("Echo", "b", until_connected=True) == "b"
    for credentials in (before, *strangers(files)):
        assert await code_of(connect(host, credentials)) in REFUSED


async def test_no_kind_of_method_answers_a_stranger(
    files: MutualFiles, serve: Serve, connect: Connect
) -> None:
    host = await serve(tls=files.let_in(ISTIO))
    known = connect(host, files.show(a_uri(ISTIO)))
    assert [answer async for answer in known.stream("Count", "2")] == [b"0", b"1"]
    assert await known.check_health(SERVICE) == Status.SERVING
    stranger = connect(host, files.show(a_uri(FOREIGN)))
    assert await code_of(stranger) in REFUSED
    assert (await failure_of(stranger.stream("Count", "2").read()))[0] in REFUSED
    assert (await failure_of(stranger.join()))[0] in REFUSED
    assert (await failure_of(stranger.watch_health(SERVICE).read()))[0] in REFUSED
    assert (await failure_of(stranger.check_health(SERVICE)))[0] in REFUSED


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_door_with_the_same_files_asks_for_names_of_its_own(
    *, is_first: bool, files: MutualFiles, serve: Serve, connect: Connect
) -> None:
    ours, others = files.let_in(*([ISTIO] if is_first else [])), files.let_in(OTHER)
    host = await serve(tls=ours, other=listen_for_other(LOOPBACK, tls=others))
    main, other = host.addresses
    path = f"/{OTHER_SERVICE}/Echo"
    assert await connect(other, files.show(a_uri(OTHER))).ask(path, "a") == "a"
    assert await code_of(connect(other, files.show(a_uri(ISTIO))), path) in REFUSED
    assert await connect(main, files.show(a_uri(ISTIO))).ask("Echo", "b") == "b"
    asked = connect(main, files.show(a_uri(OTHER)))
    if is_first:
        assert await code_of(asked) in REFUSED
    else:
        assert await asked.ask("Echo", "c") == "c"


def test_names_need_an_authority(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="client_ca"):
        TlsFiles(cert=tmp_path / "a", key=tmp_path / "b", client_uri_sans=(ISTIO,))
