"""The parameters that a process which opens doors gets from the process that started it."""

from __future__ import annotations

import base64
import pickle
from dataclasses import dataclass

from extauthz.serving.door import DoorListener
from extauthz.settings.tree import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorParameters:
    """The settings, where the doors listen, and which worker this is: 0 for the only one."""

    settings: Settings
    listeners: tuple[DoorListener, ...]
    worker: int = 0


def write_parameters(parameters: DoorParameters) -> str:
    """The parameters as text, with secrets, for a socket that only the two processes hold."""
    return base64.b64encode(pickle.dumps(parameters)).decode()


def read_parameters(text: str) -> DoorParameters:
    """Reads the text of `write_parameters`. Only safe for what came over that socket."""
    parameters = pickle.loads(base64.b64decode(text))  # noqa: S301 - not from outside
    assert isinstance(parameters, DoorParameters)
    return parameters
