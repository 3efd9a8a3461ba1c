"""What every part of the door goes by, and the denials that any of them may have to give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from extauthz.answers.denial import DenialStyle
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.request import ApiRequest
from extauthz.policy.pipeline import Pipeline
from extauthz.ports import Clock
from extauthz.serving.methods import Call, UnaryMethod
from mixer_compat.callers import ANYBODY, CallerRules
from mixer_compat.params import ParamsReader

MALFORMED: Final = Denial(
    reason=Reason.MALFORMED_REQUEST, detail="The mesh did not say enough of the request."
)
NO_REQUEST: Final = ApiRequest(method="", host="", path="", door="mixer")
"""Stands for a request that is not known, where an answer is worded."""

Handler: TypeAlias = Callable[[bytes, Call], Awaitable[bytes]]


def make_row(path: str, handle: Handler) -> UnaryMethod[bytes, bytes]:
    """A row of the method table; `path` is ``package.Service/Method``. Handlers read the bytes."""
    return UnaryMethod(path=f"/{path}", decode=bytes, handle=handle, encode=bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixerDoor:
    """What decides, and how its answers are worded.

    Attributes:
        catalog: gives the snapshot that is current now.
        quota_valid_for_us: the most that a granted amount may be kept before it is spent.
    """

    pipeline: Pipeline
    catalog: Callable[[], Catalog]
    params: ParamsReader
    clock: Clock
    style: DenialStyle = DenialStyle()
    callers: CallerRules = ANYBODY
    quota_valid_for_us: int = 1_000_000
