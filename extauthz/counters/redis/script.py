"""Writes a batch of requests as one call of `take.lua`, and reads its answer.

A request has the charges of one decision, and the future that its caller waits for. When several
requests of a batch have the same charge object, it is sent once; plans are cached, so that is
frequent.

Nothing here uses a connection, and no answer is trusted. One that is too short, too long or of the
wrong type fails every request of its batch. An impossible one (more remaining than the limit, a
reset after the window's end, charged although over the limit) fails the request that it belongs to.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from enum import IntEnum
from importlib.resources import files
from typing import Any, Final

from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Reading, Taking

_FIXED: Final = Algorithm.FIXED_WINDOW
_SLIDING: Final = Algorithm.SLIDING_WINDOW
_CALENDAR: Final = Algorithm.CALENDAR
_NOT_ENFORCED: Final = 4
_ANSWER: Final = 8
_HELD: Final = 16

_REFUSED: Final = 0
_CHARGED: Final = 1
_OUTSIDE: Final = 2
_UNREADABLE: Final = 3

_BEYOND_DOUBLES: Final = 1 << 53
_SET_BACK_US: Final = 60_000_000
"""As in the script: how far counters may be ahead of a clock that was set back."""


class Asked(IntEnum):
    """The operation of a request. The numbers are those of the script."""

    TAKE = 0
    LOOK = 1
    """As TAKE, but nothing is charged."""
    GIVE_BACK = 2


_TAKE: Final = Asked.TAKE


class CounterRequest:
    """A decision's charges in one hash slot, and the future of the answer.

    A plain class, because there is one for each decision and its fields change.

    Attributes:
        remembered_as: key of the answer to a deduplication id; empty when there is none.
        at_us: GIVE_BACK only: when it was taken; None for now.
        sent: it was sent and may have been charged, even when no answer comes.
        redirects: how often a cluster's node has redirected it.
        asking: it is sent to the node that a hash slot is being moved to (ASKING).
    """

    __slots__ = (
        "answer",
        "asked",
        "asking",
        "at_us",
        "charges",
        "redirects",
        "remembered_as",
        "sent",
        "slot",
    )

    def __init__(
        self,
        charges: Sequence[Charge],
        answer: asyncio.Future[Taking],
        asked: Asked = Asked.TAKE,
        *,
        remembered_as: str = "",
        at_us: int | None = None,
        slot: int = 0,
    ) -> None:
        self.charges = charges
        self.answer = answer
        self.asked = asked
        self.remembered_as = remembered_as
        self.at_us = at_us
        self.slot = slot
        self.sent = False
        self.asking = False
        self.redirects = 0

    def fail(self, error: CounterStoreError) -> None:
        """Ends the request with an error, unless its caller has gone."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Script:
    """The script, and how it is called.

    Args:
        prefix: put before every key; without braces, which would determine a hash slot.
        remembered_us: how long the answer to a deduplication id is kept.
    """

    def __init__(self, prefix: str, remembered_us: int) -> None:
        self.source = files(__package__).joinpath("take.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()  # as EVALSHA asks
        self._prefix = prefix
        self._remembered_us = remembered_us

    def write_key(self, key: str) -> str:
        """The name of a counter in Redis."""
        return self._prefix + key

    def write_answer_key(self, dedup_id: str, charges: Sequence[Charge]) -> str:
        """The name of the answer to a taking of these keys; in the hash slot of the first."""
        digest = hashlib.sha256(
            b"\0".join(
                _encode(part)
                for part in (
                    f"{len(dedup_id)}",
                    dedup_id,
                    *[f"{len(c.key)}:{c.key}" for c in charges],
                )
            )
        ).hexdigest()
        tag = find_hash_tag(self.write_key(charges[0].key))
        return f"{self._prefix}{{{tag}}}once|{digest[:32]}"

    def write_call(self, requests: Sequence[CounterRequest], now_us: int | None) -> tuple[Any, ...]:
        """The arguments of EVALSHA after the script's hash: number of keys, keys, arguments.

        Args:
            now_us: None for the server's own clock.
        """
        keys: list[bytes] = []
        specs: list[int] = []
        tail: list[int | str] = []
        numbers: dict[int, int] = {}
        """Index in `keys` by identity of the charge; the requests keep the charges alive."""
        prefix = self._prefix
        for request in requests:
            answer_number = 0
            if request.remembered_as:
                keys.append(_encode(request.remembered_as))
                specs.append(_ANSWER)
                answer_number = len(keys)
            if request.asked is Asked.GIVE_BACK:
                at = "" if request.at_us is None else request.at_us
                tail += (2, answer_number, at, len(request.charges))
            else:
                tail += (request.asked.value, answer_number, len(request.charges))
            for charge in request.charges:
                number = numbers.get(id(charge))
                if number is None:
                    keys.append(_encode(prefix + charge.key))
                    number = numbers[id(charge)] = len(keys)
                    algorithm = charge.algorithm
                    kind = (
                        0
                        if algorithm is _FIXED
                        else 1
                        if algorithm is _SLIDING
                        else 2
                        if algorithm is _CALENDAR
                        else 3
                    )
                    if not charge.enforced:
                        kind += _NOT_ENFORCED
                    if charge.hold_us:
                        kind += _HELD
                    specs += (kind, charge.limit, charge.window_us, charge.cost)
                    if algorithm is _CALENDAR:
                        specs += (len(charge.bounds), *charge.bounds)
                    if charge.hold_us:
                        specs.append(charge.hold_us)
                tail.append(number)
        now = "" if now_us is None else now_us
        return (len(keys), *keys, now, self._remembered_us, *specs, *tail)


def settle(requests: Sequence[CounterRequest], reply: object) -> bool:
    """Gives every request its part of the script's reply, or an error.

    False when the reply cannot be read, so that the connection cannot be used any more.
    """
    try:
        answers = _read_reply(requests, reply)
    except (TypeError, ValueError, IndexError):
        for request in requests:
            request.fail(
                CounterStoreError(
                    "Redis answered the counting script in an unknown way; "
                    "it is not known whether anything was charged"
                )
            )
        return False
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, CounterStoreError):
            request.fail(answer)
        elif not request.answer.done():
            request.answer.set_result(answer)
    return True


def _read_reply(
    requests: Sequence[CounterRequest], reply: object
) -> list[Taking | CounterStoreError]:
    if type(reply) is not list or set(map(type, reply)) != {int}:
        raise TypeError
    answers: list[Taking | CounterStoreError] = []
    at = 0
    for request in requests:
        status, at_us = reply[at], reply[at + 1]
        at += 2
        if status == _OUTSIDE:
            answers.append(_outside(request, at_us))
        elif status == _UNREADABLE:
            answers.append(
                CounterStoreError(
                    "a key of this limit holds no counter", transient=False, charged_nothing=True
                )
            )
        elif status not in (_REFUSED, _CHARGED):
            raise ValueError
        elif request.asked is Asked.GIVE_BACK:
            answers.append(Taking(status == _CHARGED, (), at_us))
        else:
            end = at + 3 * len(request.charges)
            answers.append(_read_taking(request, at_us, reply[at:end], charged=status == _CHARGED))
            at = end
    if at != len(reply):
        raise ValueError
    return answers


def _read_taking(
    request: CounterRequest, at_us: int, numbers: list[int], *, charged: bool
) -> Taking | CounterStoreError:
    """The taking of a request, or an error when its readings are impossible."""
    if len(numbers) != 3 * len(request.charges):
        raise ValueError
    readings = []
    passes, is_sound = True, 0 <= at_us < _BEYOND_DOUBLES
    # A remembered answer may be from a time when the limit had another value.
    is_remembered = request.remembered_as != ""
    is_taken = charged and request.asked is _TAKE
    each = iter(numbers)
    for charge, remaining, reset_us, retry_us in zip(
        request.charges, each, each, each, strict=True
    ):
        longest_us = 2 * charge.window_us + _SET_BACK_US
        if charge.algorithm is _CALENDAR and charge.bounds:
            longest_us = charge.bounds[-1] - charge.bounds[0]
        exceeded = retry_us > 0
        most = _BEYOND_DOUBLES if is_remembered else charge.limit
        if exceeded:
            passes = passes and not charge.enforced
        elif is_taken and not is_remembered:
            most -= charge.cost
        if not (
            0 <= remaining <= most
            and 0 <= reset_us <= longest_us
            and 0 <= retry_us <= longest_us
            # A limit that is not enforced is charged above its value.
            and (charged or is_remembered or exceeded is (charge.cost > remaining))
        ):
            is_sound = False
        readings.append(Reading(exceeded, remaining, reset_us, retry_us))
    if not is_sound or (charged is not passes and not is_remembered):
        return CounterStoreError(
            "Redis's answer for a limit cannot be true; it is not known whether anything was "
            "charged; is the same version of extauthz counting everywhere?"
        )
    return Taking(charged, tuple(readings), at_us)


def _outside(request: CounterRequest, at_us: int) -> CounterStoreError:
    bounds = [charge.bounds for charge in request.charges if charge.algorithm is _CALENDAR]
    return CounterStoreError(
        f"Redis's time {at_us} µs is in none of the calendar windows {bounds}; "
        "compare the clocks of Redis and of this host",
        charged_nothing=True,
    )


def _encode(text: str) -> bytes:
    """Header values in keys may hold lone surrogates, where bytes were not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def find_hash_tag(key: str) -> str:
    """The part of a key that Redis Cluster hashes: the text in its first braces, else all."""
    begin = key.find("{")
    if begin >= 0:
        end = key.find("}", begin + 1)
        if end > begin + 1:
            return key[begin + 1 : end]
    return key
