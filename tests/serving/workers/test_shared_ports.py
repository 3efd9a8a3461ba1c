"""Ports that workers share, and nobody else."""

from __future__ import annotations

import socket

import pytest

from extauthz.serving.listen import ListenAddress, ListenError, read_listen_address
from extauthz.serving.workers.shared_ports import hold_ports
from tests.contracts.rpc_service import listen_on
from tests.free_ports import find_free_port

LOOPBACK = read_listen_address("127.0.0.1:0")


def listen(port: int, *, is_shared: bool) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
    try:
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_a_port_is_chosen_and_held_for_those_that_share_it() -> None:
    with hold_ports(listen_on(LOOPBACK, LOOPBACK)) as (listener,):
        ports = [address.port for address in listener.addresses]
        assert len(set(ports)) == 2 and all(ports)
        with pytest.raises(OSError, match="in use"):
            listen(ports[0], is_shared=False)
        with listen(ports[0], is_shared=True), listen(ports[0], is_shared=True):
            pass
    with listen(ports[0], is_shared=False):
        pass


def test_connections_go_to_those_that_listen() -> None:
    with (
        hold_ports(listen_on(LOOPBACK)) as (listener,),
        listen(listener.addresses[0].port, is_shared=True) as server,
    ):
        for _ in range(32):
            with socket.create_connection(server.getsockname(), timeout=20):
                server.accept()[0].close()


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_somebody_listens_on_is_refused(*, is_shared: bool) -> None:
    with listen(0, is_shared=is_shared) as taken:
        port = taken.getsockname()[1]
        wanted = listen_on(read_listen_address(f"127.0.0.1:{port}"))
        with (
            pytest.raises(ListenError, match=f"^127.0.0.1:{port}: cannot be listened on"),
            hold_ports(wanted),
        ):
            raise AssertionError("it was held")


def test_what_fails_holds_nothing() -> None:
    with listen(0, is_shared=False) as taken:
        port = find_free_port()
        wanted = listen_on(
            read_listen_address(f"127.0.0.1:{port}"),
            read_listen_address(f"127.0.0.1:{taken.getsockname()[1]}"),
        )
        with pytest.raises(ListenError), hold_ports(wanted):
            raise AssertionError("it was held")
        with listen(port, is_shared=False):
            pass


def test_a_name_has_one_port_for_all_its_addresses() -> None:
    with hold_ports(listen_on(read_listen_address("localhost:0"))) as (listener,):
        (address,) = listener.addresses
        assert (address.host, bool(address.port)) == ("localhost", True)


def test_a_name_that_is_none_is_refused() -> None:
    with (
        pytest.raises(ListenError, match="no such host:0: cannot be listened on"),
        hold_ports(listen_on(ListenAddress(host="no such host"))),
    ):
        raise AssertionError("it was held")


def test_a_unix_socket_cannot_be_shared() -> None:
    with (
        pytest.raises(ValueError, match="cannot be shared"),
        hold_ports(listen_on(ListenAddress(path="/tmp/s"))),
    ):
        raise AssertionError("it was held")
