"""The addresses of the doors inside an Envoy: before its start, and once it listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from extauthz.serving.door import DoorListener
from extauthz.serving.inside_envoy.bootstrap import SHARED, list_shared_addresses
from extauthz.serving.listen import ListenAddress, ListenError
from extauthz.serving.tls import TlsFiles


def list_addresses(listeners: Sequence[DoorListener]) -> list[ListenAddress]:
    """Lists all addresses, in the order of the listeners."""
    return [address for listener in listeners for address in listener.addresses]


def put_ports(
    listeners: Sequence[DoorListener],
    ports: Mapping[str, Sequence[int]],
    shared_tls: TlsFiles | None,
) -> Iterator[DoorListener]:
    """Replaces ports by those on which Envoy listens.

    Args:
        listeners: as configured; ports may be 0.
        ports: the ports of each of Envoy's listeners, by its name.
        shared_tls: the certificates of the shared listener.
    """
    shared = iter(ports[SHARED])
    for listener in listeners:
        if listener.tls == shared_tls:
            its_ports = iter(list(islice(shared, len(listener.addresses))))
        else:
            next(shared)  # the private socket
            its_ports = iter(ports[listener.door])
        addresses = tuple(
            address if address.path else replace(address, port=port)
            for address, port in zip(listener.addresses, its_ports, strict=True)
        )
        yield replace(listener, addresses=addresses)


def write_routes(
    listeners: Sequence[DoorListener], shared_tls: TlsFiles | None, folder: Path
) -> dict[str, str]:
    """Maps each address, in the form of `ADDRESS_HEADER`, to the name of its door."""
    return {
        address.path or str(address): listener.door
        for listener in listeners
        for address in list_shared_addresses(listener, shared_tls, folder)
    }


async def resolve_hosts(listeners: Sequence[DoorListener]) -> list[DoorListener]:
    """Replaces host names by IP addresses, because Envoy accepts only these for listeners.

    Raises:
        ListenError: a name has no address.
    """
    return [
        replace(
            listener, addresses=tuple([await _resolve(address) for address in listener.addresses])
        )
        for listener in listeners
    ]


async def _resolve(address: ListenAddress) -> ListenAddress:
    if address.path:
        return address
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ListenError(f"{address}: the host cannot be resolved ({exc.strerror})") from exc
    return replace(address, host=str(found[0][4][0]))
