"""Defines what handlers of the Mixer door share: the core, the answers' style, common denials."""

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
"""An empty request, for answers when the request is not known."""

Handler: TypeAlias = Callable[[bytes, Call], Awaitable[bytes]]


def make_row(path: str, handle: Handler) -> UnaryMethod[bytes, bytes]:
    """Makes a method; `path` is ``package.Service/Method``. Its handler gets the bytes."""
    return UnaryMethod(path=f"/{path}", decode=bytes, handle=handle, encode=bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixerDoor:
    """The pipeline, and the style of answers.

    Attributes:
        catalog: returns the current snapshot.
        quota_valid_for_us: longest time for which a granted amount may be kept unspent.
    """

    pipeline: Pipeline
    catalog: Callable[[], Catalog]
    params: ParamsReader
    clock: Clock
    style: DenialStyle = DenialStyle()
    callers: CallerRules = ANYBODY
    quota_valid_for_us: int = 1_000_000
