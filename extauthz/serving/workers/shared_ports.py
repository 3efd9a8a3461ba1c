"""Reserves TCP ports that the workers of one service share (SO_REUSEPORT).

Any process of this user could join a shared port, such as another service by mistake. So each port
is first bound exclusively, which fails when another process listens there; then it is held shared
as long as workers may start and end. A held port that does not listen gets no connections.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from extauthz.serving.door import DoorListener
from extauthz.serving.listen import ListenAddress, ListenError


@contextmanager
def hold_ports(listeners: Sequence[DoorListener]) -> Iterator[tuple[DoorListener, ...]]:
    """The same listeners with actual ports in place of port 0, held until the block ends.

    Raises:
        ListenError: a port cannot be bound.
        ValueError: an address is a Unix socket, which cannot be shared.
    """
    with ExitStack() as held:
        yield tuple(
            replace(
                listener,
                addresses=tuple(_hold(address, held) for address in listener.addresses),
            )
            for listener in listeners
        )


def _hold(address: ListenAddress, held: ExitStack) -> ListenAddress:
    if address.path:
        raise ValueError(f"{address}: a unix socket cannot be shared")
    port = address.port
    try:
        found = socket.getaddrinfo(
            address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # Once a name stands for several addresses, one port is chosen for all.
        for family, _, _, _, place in dict.fromkeys(found):
            with _bind(family, (place[0], port, *place[2:]), is_shared=False) as alone:
                port = alone.getsockname()[1]
            held.enter_context(_bind(family, (place[0], port, *place[2:]), is_shared=True))
    except OSError as exc:
        raise ListenError(
            f"{address}: cannot be listened on ({exc.strerror}); is the address this machine's, "
            "the port free, and may this user take it?"
        ) from exc
    return replace(address, port=port)


def _bind(family: int, place: tuple[object, ...], *, is_shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        option = socket.SO_REUSEPORT if is_shared else socket.SO_REUSEADDR
        made.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            # The same port of IPv4 may be another listener's.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
        if not is_shared:
            # An address that only waits for its old connections to be forgotten is free; one
            # that is listened on is not.
            made.listen(1)
    except BaseException:
        made.close()
        raise
    return made
