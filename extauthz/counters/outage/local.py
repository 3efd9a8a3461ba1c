"""Takes a request's charges in memory, as each limit's outage mode says.

DENY    when enforced: CounterStoreError, so the request is unavailable. Unenforced: as LOCAL.
ALLOW   not counted: it has room, and all of its limit remains.
LOCAL   taken from the local store, against this process's share of the limit, rounded up.

The charges that are counted are taken all or none. Nothing here waits, so that checking the modes,
taking, and noting the debt are atomic. The time of a local taking is a subclass of `int`, by which
`give_back` recognises where it was charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.debts import Debts
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Charge, OutageMode, Reading, Taking
from extauthz.ports import Clock

_ALLOW: Final = OutageMode.ALLOW
_DENY: Final = OutageMode.DENY
_LARGEST_DENOMINATOR: Final = 1_000_000


class LocalTime(int):
    """The time of a taking that was charged here, and not at the primary."""

    __slots__ = ()


class DebtTime(LocalTime):
    """The time of a local taking that is also a debt to the primary."""

    __slots__ = ()


class LocalTakings:
    """Takes charges in this process's memory.

    Attributes:
        admitted: requests that were charged here.
        unrecorded: costs that did not fit into the debts, and are never charged at the primary.
    """

    def __init__(
        self,
        store: MemoryCounterStore,
        debts: Debts,
        clock: Clock,
        share: Fraction | float,
    ) -> None:
        """Counts in `store`, up to `share` of each limit.

        Raises:
            ValueError: the share is not above 0 and at most 1.
        """
        exact = Fraction(share).limit_denominator(_LARGEST_DENOMINATOR)
        if not 0 < exact <= 1:
            raise ValueError(f"a share of {share} is not above 0 and at most 1")
        self._numerator, self._denominator = exact.numerator, exact.denominator
        self._store = store
        self._debts = debts
        self._clock = clock
        self.admitted = 0
        self.unrecorded = 0

    async def take(
        self,
        charges: Sequence[Charge],
        unanswered: CounterStoreError | None = None,
        *,
        as_debt: bool = True,
    ) -> Taking:
        """Takes charges as their outage modes say.

        Args:
            unanswered: the error of the primary; None when it was not asked.
            as_debt: False when the primary may have charged it, so that it must not be paid.

        Raises:
            CounterStoreError: a limit denies in an outage, or there is no place for a counter.
            ValueError: as for `CounterStore.take`.
        """
        counted = _check_modes(charges, unanswered)
        taking = await self._store.take([self._share(charge) for charge in counted])
        at_us = LocalTime(taking.at_us)
        if taking.charged and counted:
            self.admitted += 1
            if as_debt:
                at_us = DebtTime(at_us)
                for charge in counted:
                    if charge.cost and not self._debts.add(charge, at_us):
                        self.unrecorded += charge.cost
        readings = taking.readings
        if len(counted) < len(charges):
            of_counted = iter(readings)
            readings = tuple(
                [
                    Reading(False, charge.limit, 0, 0)
                    if charge.on_outage is _ALLOW
                    else next(of_counted)
                    for charge in charges
                ]
            )
        return Taking(taking.charged, readings, at_us)

    async def read(self, charges: Sequence[Charge]) -> list[tuple[int, Reading]]:
        """For each charge, this process's share of the limit, and what is left of that."""
        shared = [self._share(replace(charge, cost=0)) for charge in charges]
        taking = await self._store.take(shared)
        return [
            (charge.limit, reading) for charge, reading in zip(shared, taking.readings, strict=True)
        ]

    async def give_back(self, charges: Sequence[Charge], at_us: LocalTime) -> None:
        """Undoes a local taking, and its debt when that is not paid yet."""
        counted = [charge for charge in charges if charge.on_outage is not _ALLOW]
        await self._store.give_back([self._share(charge) for charge in counted], at_us=at_us)
        if isinstance(at_us, DebtTime):
            now_us = self._clock.now_us()
            for charge in counted:
                self._debts.forgive(charge, at_us, now_us)

    async def close(self) -> None:
        """Forgets everything."""
        await self._store.close()

    def _share(self, charge: Charge) -> Charge:
        # Rounded up, so that a limit of 1 or more admits at least 1, and a limit of 0 nothing.
        return replace(charge, limit=-(-charge.limit * self._numerator // self._denominator))


def _check_modes(
    charges: Sequence[Charge], unanswered: CounterStoreError | None
) -> Sequence[Charge]:
    """The charges that are counted here, in their order.

    Raises:
        CounterStoreError: an enforced limit denies in an outage.
        ValueError: as for `CounterStore.take`.
    """
    keys = set()
    counted = []
    for charge in charges:
        if charge.cost < 0:
            raise ValueError(f"cost {charge.cost} is negative; use give_back")
        if charge.on_outage is _DENY and charge.enforced:
            raise CounterStoreError(
                "the counter store is away, and a limit says on_outage: deny"
            ) from unanswered
        keys.add(charge.key)
        if charge.on_outage is not _ALLOW:
            counted.append(charge)
    if len(keys) != len(charges):
        raise ValueError("a key stands twice among the charges")
    return counted
