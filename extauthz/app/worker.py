"""A worker with grpcio: ``python -m extauthz.app.worker``, started and steered by `serve`.

It is not for use by hand: its parameters come over a socket that the environment names.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from extauthz.app.log import open_log_sending, start_log
from extauthz.app.parameters import DoorParameters, read_parameters
from extauthz.app.service import open_service, read_host_limits
from extauthz.model.limits import US_PER_S
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.workers.control import ControlEnded, Steered
from extauthz.serving.workers.process_host import STOP

MODULE: Final = "extauthz.app.worker"


async def work() -> None:
    """Serves until the process that started this one has ended."""
    steered = await Steered.connect()
    opened = False
    try:
        first = await steered.read_first()
        parameters = read_parameters(first["parameters"])
        settings, worker = parameters.settings, parameters.worker
        start_log(settings.log, worker=worker)
        with open_log_sending(settings, worker=worker):
            async with open_service(settings, worker=worker) as service:
                host = GrpcioHost(
                    service.doors,
                    parameters.listeners,
                    limits=read_host_limits(settings.server, is_shared=True),
                )
                try:
                    await host.start()
                    opened = True
                    steered.say_open()
                    await steered.obey(service.words, {**service.questions, STOP: host.stop})
                finally:
                    await host.stop(_read_grace_s(parameters))
    except ControlEnded:
        pass
    except Exception as exc:
        if opened:
            raise
        steered.say_failed(exc)
    finally:
        steered.close()


def _read_grace_s(parameters: DoorParameters) -> float:
    return parameters.settings.server.grace / US_PER_S


def main() -> None:
    """Runs until the end. Signals are for the process that steers this one."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # gRPC's core would print lines of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import uvloop

    uvloop.run(work())


if __name__ == "__main__":
    main()
