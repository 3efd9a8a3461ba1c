"""What comes over the Envoy host's socket may be anything: it goes on, and answers what is good."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc
import pytest
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from extauthz.serving.inside_envoy.host import EnvoyHost
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import read_listen_address
from tests.contracts.rpc_service import SERVICE, listen_on, path_of

APP: Final = "tests.contracts.rpc_app:app"
SEED: Final = 20
ROUNDS: Final = 9
AT_ONCE: Final = 20
PATIENCE_S: Final = 60
HANDSHAKE_S: Final = 2.0
"""What begins and does not go on is ended after this."""
MAX_GROWTH_KIB: Final = 64 * 1024
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHODS: Final = ("Echo", "Describe", "Picky", "Join", "Count", "Nope")


@pytest.fixture
async def host() -> AsyncIterator[EnvoyHost]:
    host = EnvoyHost(
        APP,
        listen_on(read_listen_address("127.0.0.1:0")),
        parameters={"limits": {"handshake_timeout_s": HANDSHAKE_S}},
        limits=HostLimits(handshake_timeout_s=HANDSHAKE_S),
    )
    await host.start()
    yield host
    await host.stop(0)


class Fuzzer:
    """Writes connections that are gRPC's but for something."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def write_connection(self) -> list[bytes]:
        """The bytes of one connection, in the pieces that are sent."""
        choose = self._random
        encoder = Encoder()
        frames: list[Frame] = [SettingsFrame(0)]
        for number in range(choose.randint(1, 8)):
            stream = 2 * number + 1
            frames.append(self._write_headers(stream, encoder))
            body = self._write_messages()
            cut = choose.randint(0, len(body))
            first, last = (DataFrame(stream, part[:16_000]) for part in (body[:cut], body[cut:]))
            if choose.random() < 0.7:
                last.flags.add("END_STREAM")
            frames += [first, last]
            if choose.random() < 0.2:
                frames.append(RstStreamFrame(stream, error_code=choose.randint(0, 20)))
            if choose.random() < 0.1:
                frames.append(PingFrame(0, opaque_data=choose.randbytes(8)))
        if choose.random() < 0.3:
            choose.shuffle(frames)
        raw = PREFACE + b"".join(frame.serialize() for frame in frames)
        if choose.random() < 0.3:
            raw = self._spoil(raw)
        cuts = sorted(choose.sample(range(len(raw)), min(len(raw), choose.randint(0, 12))))
        return [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    def _write_headers(self, stream: int, encoder: Encoder) -> HeadersFrame:
        choose = self._random
        fields = [
            (":method", choose.choice(["POST", "POST", "POST", "GET", "TRACE"])),
            (":scheme", "http"),
            (":path", choose.choice([path_of(choose.choice(METHODS)), f"/{SERVICE}", "*", ""])),
            (":authority", "a"),
            ("content-type", choose.choice(["application/grpc", "application/grpc", "text/html"])),
            ("te", choose.choice(["trailers", "trailers", "gzip"])),
            ("grpc-timeout", choose.choice(["1S", "0n", "-1S", "99999999H", "x", "1"])),
            ("x-raw-bin", choose.choice(["AA==", "AA", "?", ""])),
        ]
        if choose.random() < 0.2:
            fields.pop(choose.randrange(len(fields)))
        frame = HeadersFrame(stream, encoder.encode(fields))
        frame.flags.add("END_HEADERS")
        return frame

    def _write_messages(self) -> bytes:
        choose = self._random
        messages = b""
        for _ in range(choose.choice([0, 1, 1, 1, 2, 50])):
            body = choose.randbytes(choose.choice([0, 1, 10, 300]))
            length = choose.choice([len(body), len(body), len(body), 0, 2**31, 2**32 - 1])
            messages += struct.pack(">BI", choose.choice([0, 0, 0, 1, 255]), length) + body
        return messages

    def _spoil(self, raw: bytes) -> bytes:
        choose = self._random
        start = choose.randrange(len(raw))
        return raw[:start] + choose.randbytes(choose.randint(1, 64)) + raw[start:]


async def send(
    host: EnvoyHost, pieces: list[bytes], *, reads: bool, to_the_end: bool = False
) -> None:
    """Sends the pieces, and goes: at once, or when the other side has said something, or all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.addresses[0].port)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if reads:
            await asyncio.wait_for(reader.read(-1 if to_the_end else 1), PATIENCE_S)
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


def memory_of(process_id: int) -> int:
    """What the process has in memory now, in KiB."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line[:6] == "VmRSS:")


async def ask(host: EnvoyHost) -> bytes:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(str(host.addresses[0]), options) as channel:
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path_of("Echo"))
        return await echo(b"good", timeout=PATIENCE_S)


async def test_it_outlives_whatever_comes_over_its_socket(host: EnvoyHost) -> None:
    fuzzer = Fuzzer(SEED)
    ending = asyncio.create_task(host.wait_ended())
    assert host.process_id is not None
    before = 0
    for number in range(ROUNDS):
        if number == ROUNDS // 3:  # once its buffers and caches are made
            before = memory_of(host.process_id)
        connections = [fuzzer.write_connection() for _ in range(AT_ONCE)]
        await asyncio.gather(
            *(send(host, pieces, reads=at % 2 == 0) for at, pieces in enumerate(connections))
        )
        assert await ask(host) == b"good"
    assert await ask(host) == b"good"
    assert not ending.done()
    assert memory_of(host.process_id) - before < MAX_GROWTH_KIB
    ending.cancel()


async def test_garbage_that_is_no_http_2_is_hung_up_on(host: EnvoyHost) -> None:
    choose = random.Random(SEED)
    garbage = [[choose.randbytes(choose.randint(24, 5000))] for _ in range(AT_ONCE)]
    await asyncio.gather(*(send(host, pieces, reads=True, to_the_end=True) for pieces in garbage))
    assert await ask(host) == b"good"
