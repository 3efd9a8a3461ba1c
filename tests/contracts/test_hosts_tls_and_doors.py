"""What every host must do with certificates, and with several doors."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme

from extauthz.errors import ConfigError
from extauthz.serving.listen import ListenAddress, ListenError, read_listen_address
from extauthz.serving.tls import TlsFiles
from tests.certificates import renew_file
from tests.contracts.rpc_caller import (
    LOOPBACK,
    PATIENCE_S,
    Code,
    Connect,
    MakeHost,
    Serve,
    Status,
    failure_of,
    next_status,
)
from tests.contracts.rpc_service import (
    OTHER_SERVICE,
    SERVICE,
    listen_for_other,
    listen_on,
)

# TLS


class Files:
    """TLS files of a host in a folder, and what its callers need."""

    def __init__(self, folder: Path, *, mutual: bool = False) -> None:
        self.client_authority = trustme.CA()
        self.tls = TlsFiles(cert=folder / "tls.crt", key=folder / "tls.key")
        if mutual:
            self.tls = replace(self.tls, client_ca=folder / "ca.crt")
            self.client_authority.cert_pem.write_to_path(folder / "ca.crt")
        self.authority = self.renew()

    def renew(self) -> trustme.CA:
        """Writes a new certificate from a new authority."""
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("127.0.0.1", "localhost")
        renew_file(self.tls.cert, b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        renew_file(self.tls.key, leaf.private_key_pem.bytes())
        return self.authority

    def trust(self, *, of: trustme.CA | None = None) -> grpc.ChannelCredentials:
        """Trusts the host; shows a client certificate of the given authority."""
        roots = self.authority.cert_pem.bytes()
        if of is None:
            return grpc.ssl_channel_credentials(roots)
        leaf = of.issue_cert("client.example")
        return grpc.ssl_channel_credentials(
            roots, leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
        )


async def test_serves_tls_and_nothing_else_on_a_tls_listener(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    host = await serve(tls=files.tls)
    assert await connect(host, files.trust()).ask("Echo", "a") == "a"
    assert (await failure_of(connect(host).start("Echo")))[0] is Code.UNAVAILABLE


async def test_shows_a_renewed_certificate_without_a_restart(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    host = await serve(tls=files.tls, listen=(LOOPBACK, LOOPBACK))
    old = files.trust()
    open_before = connect(host, old)
    assert await open_before.ask("Echo", "a") == "a"

    files.renew()

    for address in host.addresses:
        renewed = connect(address, files.trust())
        assert await renewed.ask("Echo", "b", until_connected=True) == "b"
        assert (await failure_of(connect(address, old).start("Echo")))[0] is Code.UNAVAILABLE
    assert await open_before.ask("Echo", "c") == "c"


async def test_keeps_the_old_certificate_while_new_files_are_not_usable(
    serve: Serve, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path)
    host = await serve(tls=files.tls)
    old = files.trust()
    old_key = files.tls.key.read_bytes()
    files.renew()
    new_key = files.tls.key.read_bytes()
    renew_file(files.tls.key, old_key)
    async with asyncio.timeout(PATIENCE_S):
        while "new TLS files are not usable" not in caplog.text:
            assert await connect(host, old).ask("Echo", "a") == "a"
    assert await connect(host, old).ask("Echo", "a") == "a"

    renew_file(files.tls.key, new_key)
    assert await connect(host, files.trust()).ask("Echo", "b", until_connected=True) == "b"


async def test_does_not_start_with_tls_files_that_are_not_usable(
    serve: Serve, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    files.tls.key.write_text("no key")
    with pytest.raises(ConfigError, match=r"tls\.key"):
        await serve(tls=files.tls)


async def test_mutual_tls_lets_in_its_authoritys_clients_alone(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path, mutual=True)
    host = await serve(tls=files.tls)
    known = files.trust(of=files.client_authority)
    assert await connect(host, known).ask("Echo", "a") == "a"
    for credentials in (files.trust(), files.trust(of=trustme.CA())):
        assert (await failure_of(connect(host, credentials).start("Echo")))[0] is Code.UNAVAILABLE


async def test_a_renewed_client_authority_replaces_the_old_one(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path, mutual=True)
    host = await serve(tls=files.tls)
    old = files.trust(of=files.client_authority)
    assert await connect(host, old).ask("Echo", "a") == "a"

    renewed = trustme.CA()
    renew_file(tmp_path / "ca.crt", renewed.cert_pem.bytes())

    renewed_caller = connect(host, files.trust(of=renewed))
    assert await renewed_caller.ask("Echo", "b", until_connected=True) == "b"
    assert (await failure_of(connect(host, old).start("Echo")))[0] is Code.UNAVAILABLE


# Several doors


def other_path(name: str) -> str:
    return f"/{OTHER_SERVICE}/{name}"


@pytest.fixture(params=["ports", "unix sockets", "a port and a socket"])
def two_addresses(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ListenAddress, ...]:
    first, second = (ListenAddress(path=str(tmp_path / name)) for name in ("first", "second"))
    addresses: dict[str, tuple[ListenAddress, ...]] = {
        "ports": (LOOPBACK, LOOPBACK),
        "unix sockets": (first, second),
        "a port and a socket": (read_listen_address("0.0.0.0:0"), second),
    }
    return addresses[request.param]


async def test_each_door_answers_on_its_own_address_alone(
    two_addresses: tuple[ListenAddress, ...], serve: Serve, connect: Connect
) -> None:
    first, second = two_addresses
    host = await serve(listen=(first,), other=listen_for_other(second))
    caller, other = (
        connect(replace(address, host="127.0.0.1") if address.port else address)
        for address in host.addresses
    )
    assert await caller.ask("Echo", "a") == "a"
    assert await other.ask(other_path("Echo"), "b") == "b"
    assert (await failure_of(caller.start(other_path("Echo"))))[0] is Code.UNIMPLEMENTED
    assert (await failure_of(other.start("Echo")))[0] is Code.UNIMPLEMENTED
    assert await caller.check_health(SERVICE) == Status.SERVING
    assert (await failure_of(caller.check_health(OTHER_SERVICE)))[0] is Code.NOT_FOUND
    assert await other.check_health(OTHER_SERVICE) == Status.SERVING


async def test_a_caller_cannot_choose_another_door(serve: Serve, connect: Connect) -> None:
    host = await serve(other=listen_for_other(LOOPBACK))
    caller, other = map(connect, host.addresses)
    for name in ("extauthz-local-address", "x-forwarded-host", "host"):
        metadata = ((name, str(host.addresses[1])), (name, str(host.addresses[1])))
        call = caller.start(other_path("Echo"), metadata=metadata)
        assert (await failure_of(call))[0] is Code.UNIMPLEMENTED
        assert await caller.start("Echo", "a", metadata=metadata) == b"a"
    assert await other.ask(other_path("Echo"), "b") == "b"


async def test_doors_share_one_bound_on_their_load(serve: Serve, connect: Connect) -> None:
    host = await serve(other=listen_for_other(LOOPBACK), max_in_flight=1)
    caller, other = map(connect, host.addresses)
    waiting = caller.start("Wait", "a")
    await caller.ask("Await", "entered a")
    assert (await failure_of(other.start(other_path("Echo"))))[0] is Code.UNAVAILABLE
    await caller.ask("Set", "release a")
    assert await waiting == b"released a"
    assert await other.ask(other_path("Echo"), "b") == "b"


async def test_a_stop_lets_the_calls_of_every_door_finish(serve: Serve, connect: Connect) -> None:
    host = await serve(other=listen_for_other(LOOPBACK))
    caller, other = map(connect, host.addresses)
    watches = [caller.watch_health(), other.watch_health()]
    for watch in watches:
        assert await next_status(watch) == Status.SERVING
    releaser = caller.stream("SetWhenLeft", "release a")
    assert await releaser.read() == b"ready"
    waiting = caller.start("Wait", "a")
    await caller.ask("Await", "entered a")
    joined: grpc.aio.StreamUnaryCall[bytes, bytes] = other.channel.stream_unary(other_path("Join"))(
        timeout=PATIENCE_S
    )
    await joined.write(b"b")
    await other.ask(other_path("Await"), "heard b")

    stopping = asyncio.create_task(host.stop(PATIENCE_S))
    for watch in watches:
        assert await next_status(watch) == Status.NOT_SERVING
    assert await joined == b"b"
    for address in host.addresses:
        assert (await failure_of(connect(address).start("Echo")))[0] is Code.UNAVAILABLE
    assert not stopping.done()
    releaser.cancel()
    assert await waiting == b"released a"
    await stopping


async def test_a_stop_cancels_what_outlives_the_grace_on_every_door(
    serve: Serve, connect: Connect
) -> None:
    host = await serve(other=listen_for_other(LOOPBACK))
    caller, other = map(connect, host.addresses)
    waiting = [caller.start("Wait", "a"), other.start(other_path("Wait"), "a")]
    await caller.ask("Await", "entered a")
    await other.ask(other_path("Await"), "entered a")
    await host.stop(0)
    for call in waiting:
        assert (await failure_of(call))[0] in {Code.UNAVAILABLE, Code.CANCELLED}


async def test_no_door_is_opened_when_one_cannot_be(
    make_host: MakeHost, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    taken = await serve()
    path = tmp_path / "s"
    listeners = (*listen_on(ListenAddress(path=str(path))), listen_for_other(taken.addresses[0]))
    host = make_host({}, listeners)
    with pytest.raises(ListenError, match=str(taken.addresses[0].port)):
        await host.start()
    assert not path.exists() and host.addresses == ()
    assert await connect(taken).ask("Echo", "a") == "a"


@pytest.mark.parametrize(
    "with_tls",
    [{"first"}, {"other"}, {"first", "other"}],
    ids=lambda names: "+".join(sorted(names)),
)
async def test_each_door_shows_its_own_certificate(
    with_tls: set[str], serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "other").mkdir()
    first = Files(tmp_path / "first", mutual=True) if "first" in with_tls else None
    other = Files(tmp_path / "other") if "other" in with_tls else None
    host = await serve(
        tls=first.tls if first else None,
        other=listen_for_other(LOOPBACK, tls=other.tls if other else None),
    )
    trusted = first.trust(of=first.client_authority) if first else None
    trusted_other = other.trust() if other else None
    caller = connect(host.addresses[0], trusted)
    other_caller = connect(host.addresses[1], trusted_other)
    assert await caller.ask("Echo", "a") == "a"
    assert await other_caller.ask(other_path("Echo"), "b" * 1_000_000) == "b" * 1_000_000
    assert (await failure_of(caller.start(other_path("Echo"))))[0] is Code.UNIMPLEMENTED
    assert (await failure_of(other_caller.start("Echo")))[0] is Code.UNIMPLEMENTED
    # What one listener trusts is nothing to the other.
    crossed = (
        (connect(host.addresses[1], trusted), other_path("Echo")),
        (connect(host.addresses[0], trusted_other), "Echo"),
    )
    for wrong, path in crossed:
        assert (await failure_of(wrong.start(path)))[0] is Code.UNAVAILABLE


async def test_a_renewed_certificate_is_shown_by_its_own_door(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "other").mkdir()
    first, other = Files(tmp_path / "first"), Files(tmp_path / "other")
    host = await serve(tls=first.tls, other=listen_for_other(LOOPBACK, tls=other.tls))
    unchanged = first.trust()
    open_before = connect(host.addresses[1], other.trust())
    assert await open_before.ask(other_path("Echo"), "a") == "a"
    other.renew()
    renewed = connect(host.addresses[1], other.trust())
    assert await renewed.ask(other_path("Echo"), "b", until_connected=True) == "b"
    assert await connect(host.addresses[0], unchanged).ask("Echo", "c") == "c"
    assert await open_before.ask(other_path("Echo"), "d") == "d"


def test_needs_addresses_and_doors_of_its_own(make_host: MakeHost) -> None:
    with pytest.raises(ValueError, match="at least one address"):
        make_host({}, ())
    with pytest.raises(ValueError, match="at least one address"):
        make_host({}, listen_on())
    with pytest.raises(ValueError, match="two listeners of one door"):
        make_host({}, (*listen_on(LOOPBACK), *listen_on(LOOPBACK)))
