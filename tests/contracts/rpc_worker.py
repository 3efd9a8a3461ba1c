"""The contract service as a worker: ``python -m tests.contracts.rpc_worker``."""

from __future__ import annotations

import asyncio
import os
import signal

from extauthz.serving.door import DoorListener
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import read_listen_address
from extauthz.serving.workers.control import Steered
from extauthz.serving.workers.process_host import STOP
from tests.contracts.rpc_app import open_doors

MODULE = "tests.contracts.rpc_worker"


async def work() -> None:
    """Opens the door with the parameters, on the address that they name."""
    steered = await Steered.connect()
    parameters = (await steered.read_first())["parameters"]
    if parameters.get("fail") == "die":
        os._exit(7)
    try:
        async with open_doors(parameters) as opened:
            address = read_listen_address(parameters["address"])
            listener = DoorListener(door="main", addresses=(address,))
            host = GrpcioHost(opened.doors, [listener], limits=HostLimits(reuse_port=True))
            await host.start()
            steered.say_open()
            await steered.obey(
                {"die": lambda: os.kill(os.getpid(), signal.SIGKILL), "fail": fail},
                {STOP: host.stop, "who": tell_who, "never": wait_for_ever, "fail": fail_to_answer},
            )
            await host.stop(0)
    except Exception as exc:  # noqa: BLE001 - whatever it was, the other end must be told
        steered.say_failed(exc)
    finally:
        steered.close()


def fail() -> None:
    """A word that cannot be done."""
    raise ValueError("what a bug says")


async def tell_who(_: object) -> int:
    """The process's id."""
    return os.getpid()


async def wait_for_ever(_: object) -> None:
    """A question that gets no answer."""
    await asyncio.Event().wait()


async def fail_to_answer(_: object) -> None:
    """A question that cannot be answered."""
    fail()


if __name__ == "__main__":
    asyncio.run(work())
