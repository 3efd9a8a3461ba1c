"""Limits how many invalid credentials a client address may send.

An address that has sent too many is refused before its credential is checked. Clients whose
address is not known are counted together. Cached credentials and JWTs with a valid signature are
not affected, so that a guesser does not lock out others who share its address.
"""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.errors import CounterStoreError
from extauthz.model.decision import Denial, Reason
from extauthz.model.limits import Algorithm, Charge, LimitLevel
from extauthz.policy.limits.keys import find_origin, write_client
from extauthz.ports import CounterStore, Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """How many invalid credentials an address may send in a window."""

    requests: int
    window_us: int


class FailedAttempts:
    """Counts failed authentications by client address (IPv6: by /64, what one site gets)."""

    def __init__(self, limit: FailureLimit | None, counters: CounterStore) -> None:
        self._limit = limit
        self._counters = counters

    async def check(self, client_address: str, deadline: Deadline) -> Denial | None:
        """Gives a denial when the address has failed too often, else None."""
        return await self._take(client_address, 0, deadline)

    async def record(self, client_address: str, deadline: Deadline) -> None:
        """Counts one more failure."""
        await self._take(client_address, 1, deadline)

    async def _take(self, client_address: str, cost: int, deadline: Deadline) -> Denial | None:
        limit = self._limit
        if limit is None:
            return None
        charge = Charge(
            _key(client_address),
            Algorithm.FIXED_WINDOW,
            limit.requests,
            limit.window_us,
            cost,
            origin=find_origin(write_client(client_address)),
        )
        try:
            taking = await self._counters.take((charge,), deadline=deadline)
        except CounterStoreError:
            # Ignored: this counter only slows guessing down, and every credential is still checked.
            return None
        reading = taking.readings[0]
        if reading.remaining > 0:
            return None
        return Denial(
            reason=Reason.RATE_LIMITED,
            detail="Too many invalid credentials came from this address.",
            level=LimitLevel.CLIENT,
            retry_after_us=reading.reset_us,
        )


def _key(client_address: str) -> str:
    # Text that is no address may have any length, so the key is cut.
    return f"failed:{write_client(client_address)[:65]}"
