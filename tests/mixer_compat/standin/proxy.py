"""The sidecar's side of Mixer: what it asks, what it keeps, and what the client gets.

Follows istio/proxy's `src/istio/mixerclient` and `src/istio/prefetch`:

- An answer is kept under the exact values of the attributes that it referenced, until it is
  past its time (never, without a duration) or used up; 0 uses are none, below 0 is no bound.
  Denials are kept like allows.
- A quota is asked for strictly while the check itself had to be asked. Once checks come from
  the cache, quota is spent from a pool that is filled ahead: what the last second needed and at
  least 10, best effort; after a refusal it waits for 500 ms.
- A check that fails is a denial unless `policyCheckFailOpen`; a quota that is not answered is
  granted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from tests.mixer_compat.standin.mixer import (
    Mixer,
    Precondition,
    QuotaAsk,
    QuotaGrant,
    RpcError,
    name_rpc_code,
)

MAX_ENTRIES: Final = 10_000
PREDICT_S: Final = 1.0
LEAST_PREFETCH: Final = 10
CLOSED_S: Final = 0.5
UNANSWERED_S: Final = 60.0

_HTTP_OF_RPC: Final = {
    0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400,
    10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip
"""The proxy's table (`src/istio/utils/status.cc`)."""


def http_of_rpc(code: int) -> int:
    """What a denial without a direct response is to the client."""
    return _HTTP_OF_RPC.get(code, 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    """What the client gets; 200 stands for "the upstream answers"."""

    status: int
    body: str = ""
    headers: tuple[tuple[str, str, bool], ...] = ()
    from_cache: bool = False


Key = tuple[tuple[str, str, Any], ...]


def find_key(
    referenced: Mapping[tuple[str, str], bool], attributes: Mapping[str, Any]
) -> Key | None:
    """The values that an answer depended on; None when something that was absent is there."""
    found = []
    for (name, key), present in sorted(referenced.items()):
        value = attributes.get(name)
        if key:
            value = None if value is None else value.get(key)
        if (value is not None) != present:
            return None
        if present:
            found.append((name, key, value))
    return tuple(found)


@dataclass(slots=True)
class CachedCheck:
    """An answer that may be used again (check_cache.cc)."""

    answer: Precondition
    expires_s: float | None
    uses: int

    def is_expired(self, now_s: float) -> bool:
        """Takes one use when it is not."""
        if (self.expires_s is not None and now_s > self.expires_s) or self.uses == 0:
            return True
        if self.uses > 0:
            self.uses -= 1
        return False


class CheckCache:
    """Answers by what they depended on; the oldest go first."""

    def __init__(self) -> None:
        self._referenced: list[Mapping[tuple[str, str], bool]] = []
        self._entries: dict[tuple[int, Key], CachedCheck] = {}

    def find(self, attributes: Mapping[str, Any], now_s: float) -> Precondition | None:
        """An answer that still counts."""
        for number, referenced in enumerate(self._referenced):
            key = find_key(referenced, attributes)
            entry = None if key is None else self._entries.get((number, key))
            if entry is not None and key is not None:
                if not entry.is_expired(now_s):
                    return entry.answer
                del self._entries[number, key]
                return None
        return None

    def keep(self, attributes: Mapping[str, Any], answer: Precondition, now_s: float) -> None:
        """Keeps an answer, whatever it says."""
        key = find_key(answer.referenced, attributes)
        assert key is not None
        if answer.referenced not in self._referenced:
            self._referenced.append(answer.referenced)
        number = self._referenced.index(answer.referenced)
        expires_s = None if answer.valid_s is None else now_s + answer.valid_s
        self._entries[number, key] = CachedCheck(answer, expires_s, answer.uses)
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]


@dataclass(slots=True)
class Slot:
    """Quota that was taken ahead."""

    available: int
    expires_s: float


@dataclass(slots=True)
class Prefetch:
    """The pool of one quota and one set of values (quota_prefetch.cc)."""

    slots: list[Slot] = field(default_factory=list)
    spent: list[tuple[float, int]] = field(default_factory=list)
    is_open: bool = True
    last_s: float = float("-inf")
    in_flight: int = 0

    def check(self, amount: int, now_s: float) -> tuple[bool, int | None, Slot | None]:
        """Whether it is granted, and what has to be asked for ahead (with its slot, if any)."""
        ask, slot = self._plan(amount, now_s)
        self.spent.append((now_s, amount))
        granted = self._available(now_s) >= amount
        if granted:
            self._take(amount, now_s)
        return granted, ask, slot

    def _plan(self, amount: int, now_s: float) -> tuple[int | None, Slot | None]:
        if not self.is_open and (self.in_flight or now_s - self.last_s < CLOSED_S):
            return None, None
        available = self._available(now_s)
        self.spent = [each for each in self.spent if now_s - each[0] < PREDICT_S]
        desired = max(sum(each for _, each in self.spent), LEAST_PREFETCH)
        if not ((available < desired // 2 and not self.in_flight) or available < amount):
            return None, None
        ask, slot = max(amount, desired), None
        if available == 0 and self.is_open:
            # Spent before it is granted.
            slot = Slot(ask, now_s + UNANSWERED_S)
            self.slots.append(slot)
        self.last_s = now_s
        self.in_flight += 1
        return ask, slot

    def answered(
        self, asked: int, slot: Slot | None, granted: QuotaGrant | None, now_s: float
    ) -> None:
        """Takes the answer in; None is a failed call, which counts as granted."""
        self.in_flight -= 1
        amount = asked if granted is None else granted.granted
        valid_s = UNANSWERED_S if granted is None else granted.valid_s
        if slot is None:
            if amount > 0:
                self.slots.append(Slot(amount, now_s + valid_s))
        else:
            missing = max(0, asked - amount)
            taken = min(slot.available, missing)
            slot.available -= taken
            self._take(missing - taken, now_s)
            slot.expires_s = now_s + valid_s if slot.available else slot.expires_s
        self.is_open = amount == asked

    def _available(self, now_s: float) -> int:
        return sum(slot.available for slot in self.slots if now_s < slot.expires_s)

    def _take(self, amount: int, now_s: float) -> None:
        for slot in self.slots:
            if now_s < slot.expires_s:
                taken = min(slot.available, amount)
                slot.available -= taken
                amount -= taken
        self.slots = [slot for slot in self.slots if slot.available and now_s < slot.expires_s]


class Proxy:
    """A sidecar in front of a service.

    Attributes:
        quotas: name to charge, as a QuotaSpec that is bound to the service says it.
        fail_open: the mesh's policyCheckFailOpen.
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        clock: Callable[[], float],
        quotas: Mapping[str, int] | None = None,
        fail_open: bool = False,
    ) -> None:
        self._mixer = mixer
        self._clock = clock
        self._quotas = dict(quotas or {})
        self._fail_open = fail_open
        self._cache = CheckCache()
        self._pools: dict[tuple[str, Key | None], Prefetch] = {}
        self._referenced: dict[str, list[Mapping[tuple[str, str], bool]]] = {}
        self.prefetches: list[int] = []
        """The amounts that were asked for ahead."""

    async def request(self, attributes: Mapping[str, Any]) -> ClientAnswer:
        """One request of a client."""
        cached = self._cache.find(attributes, self._clock())
        if cached is not None:
            return await self._answer_from_cache(attributes, cached)
        asks = {name: QuotaAsk(amount=charge) for name, charge in self._quotas.items()}
        try:
            answer = await self._mixer.check(attributes, asks, uuid4().hex)
        except RpcError as error:
            if self._fail_open:
                return ClientAnswer(status=200)
            return _deny(Precondition(code=error.code, message=error.message))
        self._cache.keep(attributes, answer.precondition, self._clock())
        if not self._is_allowed(answer.precondition):
            return _deny(answer.precondition)
        refused = [
            name for name in asks if name in answer.quotas and answer.quotas[name].granted <= 0
        ]
        return _refuse(refused) if refused else ClientAnswer(status=200)

    async def _answer_from_cache(
        self, attributes: Mapping[str, Any], cached: Precondition
    ) -> ClientAnswer:
        if not self._is_allowed(cached):
            return _deny(cached, from_cache=True)
        refused = []
        for name, charge in self._quotas.items():
            pool = self._find_pool(name, attributes)
            granted, ask, slot = pool.check(charge, self._clock())
            if not granted:
                refused.append(name)
            if ask is not None:
                await self._prefetch(name, attributes, pool, ask, slot)
        return _refuse(refused) if refused else ClientAnswer(status=200, from_cache=True)

    async def _prefetch(
        self, name: str, attributes: Mapping[str, Any], pool: Prefetch, ask: int, slot: Slot | None
    ) -> None:
        """In a real proxy this goes on behind; here it is done when the client has its answer."""
        self.prefetches.append(ask)
        asks = {name: QuotaAsk(amount=ask, best_effort=True)}
        try:
            answer = await self._mixer.check(attributes, asks, uuid4().hex)
        except RpcError:
            pool.answered(ask, slot, None, self._clock())
            return
        granted = answer.quotas.get(name)
        pool.answered(ask, slot, granted, self._clock())
        if granted is not None:
            known = self._referenced.setdefault(name, [])
            if granted.referenced not in known:
                known.append(granted.referenced)
            self._pools.setdefault((name, find_key(granted.referenced, attributes)), pool)
            self._pools.pop((name, None), None)

    def _find_pool(self, name: str, attributes: Mapping[str, Any]) -> Prefetch:
        for referenced in self._referenced.get(name, []):
            key = find_key(referenced, attributes)
            if key is not None and (name, key) in self._pools:
                return self._pools[name, key]
        # Until the first answer nobody knows what it will depend on.
        return self._pools.setdefault((name, None), Prefetch())

    def _is_allowed(self, answer: Precondition) -> bool:
        return answer.code == 0 or (answer.code == 13 and self._fail_open)


def _deny(answer: Precondition, *, from_cache: bool = False) -> ClientAnswer:
    direct = answer.direct
    if direct is not None:
        return ClientAnswer(
            status=direct.code, body=direct.body, headers=direct.headers, from_cache=from_cache
        )
    return ClientAnswer(
        status=http_of_rpc(answer.code),
        body=f"{name_rpc_code(answer.code)}:{answer.message}",
        from_cache=from_cache,
    )


def _refuse(names: list[str]) -> ClientAnswer:
    return _deny(Precondition(code=8, message=f"Quota is exhausted for: {','.join(names)}"))
