"""The arithmetic of limits: what a counter holds, and what can still be taken from it.

Every store computes exactly this, in whatever language. All numbers are integers, times are
microseconds since the Unix epoch, and all that is stored fits 53 bits, so that a script with only
doubles can do the same. W is the window, N the limit, c the cost, `//` rounds down.

A counter is four integers and a log, `(expires, edge, count, extra, older)`. From `expires` on it
is equal to an absent counter. Before it is read, `read_state` brings it forward to now; nothing is
stored for that. Only SLIDING_WINDOW uses `older`.

FIXED_WINDOW, CALENDAR: `edge` is the window's end, `count` what was taken in it.
    edge   = (now // W + 1) * W; CALENDAR: the first of `Charge.bounds` after now
    a later edge begins a new window with count 0
    room   = N - count
    wait   = reset = edge - now

SLIDING_WINDOW: a log of entries, each an end and a count. `edge` is the end of the newest entry,
`extra` its count, `count` the sum of all; `older` has the others, oldest first: end, count, end,
count, and so on. Ends never decrease.
    an entry counts in full for W from its end, and is dropped at that microsecond
    room   = N - count
    a cost that is taken at t has the end e = max(t + hold, edge), hold being `Charge.hold_us`.
    It joins the newest entry, whose end becomes e, when both ends are in the same quantum of
    time: e // Q = edge // Q. Q = ceil(W / 32); it is 1 when N is at most 32 and the cost fits.
    wait   = until enough of the oldest entries are dropped
    reset  = until the newest is dropped; 0 when there is none
    So what was taken at t counts from t to t + W at least, whatever N and Q were then: at most N
    are taken in any period of length W. It counts too long by less than Q; not at all when N is at
    most 32. With no hold above Q there are at most 66 entries: of those begun with Q above 1 no two
    are in one quantum, and one is begun with Q = 1 only while all together hold at most 32.

BURST (GCRA): the theoretical arrival time is `edge + count / extra` with extra = N: kept as
    whole microseconds and a fraction, it never drifts. A request moves it by T = W / N.
    backlog = max(0, arrival - now); room = (W - backlog) // T, so N fit at once, then one each T
    wait    = ceil(backlog + c * T - W); reset = ceil(backlog)
    When N has changed, the fraction is rounded up to a microsecond and the backlog stays: a
    consumer that had used half of the old limit has used half of the new one.
    With doubles: T = W // N + (W % N) / N; both parts of c * T stay below 2**53 while
    N <= MAX_BURST.

For all: room is never below 0. A cost fits when it is at most the room, so cost 0 always fits.
A cost above N never fits; its wait is the reset, or W when nothing is used. An unenforced
charge is added even when it does not fit; a BURST counter is then filled, not overfilled.

Giving back never makes more room, now or later, than there would be without the taking.
FIXED_WINDOW, CALENDAR: the count falls only while the window of the taking is the current one.
SLIDING_WINDOW: the cost leaves the first entry that ends at the taking (and its hold) or later:
    its own, or one that is gone before its own would be. Nothing is given back when W has passed
    since, or when that entry ends 2 Q later or more: it is then not the taking's. Without a time
    the oldest entry gives, which is gone before any other.
BURST: the counter forgets max(0, c * T - (now - taken at)); the rest has drained in any case. When
    the arrival is W or more after an unenforced taking, it may have found the counter full, and
    nothing is given back.
"""

from __future__ import annotations

from array import array
from typing import Final, TypeAlias

from extauthz.errors import CounterStoreError
from extauthz.model.limits import MAX_BURST, Algorithm, Charge

State: TypeAlias = "tuple[int, int, int, int, array[int]]"
"""`(expires, edge, count, extra, older)`, see above. The array is never changed in place."""

QUANTA: Final = 32
"""Number of parts that a sliding window is divided into."""
NONE_OLDER: Final = array("q")
EMPTY_LOG: Final[State] = (0, 0, 0, 0, NONE_OLDER)

# Module constants, because reading a member of an enum takes 40 ns longer.
_SLIDING: Final = Algorithm.SLIDING_WINDOW
_CALENDAR: Final = Algorithm.CALENDAR
_BURST: Final = Algorithm.BURST


def find_edge_us(charge: Charge, now_us: int) -> int:
    """The end of the window that contains now; any algorithm but BURST.

    Raises:
        CounterStoreError: a CALENDAR charge whose bounds do not contain now.
    """
    if charge.algorithm is not _CALENDAR:
        return now_us - now_us % charge.window_us + charge.window_us
    bounds = charge.bounds
    if bounds and bounds[0] <= now_us:
        for edge_us in bounds:
            if now_us < edge_us:
                return edge_us
    raise CounterStoreError(
        f"the store's time {now_us} µs is in none of the calendar windows {bounds}; "
        "compare the clocks of the store and of this host"
    )


def find_quantum_us(window_us: int) -> int:
    """The distance between entries of a sliding window's log, when its limit is above 32."""
    return -(-window_us // QUANTA)


def read_state(charge: Charge, stored: State | None, now_us: int) -> State:
    """The state of a counter at `now_us`; all counts are zero when nothing is stored.

    Raises:
        CounterStoreError: as `find_edge_us`.
    """
    algorithm = charge.algorithm
    if algorithm is _SLIDING:
        return read_log(stored, charge.window_us, now_us)
    if algorithm is _BURST:
        return _read_burst(charge, stored, now_us)
    edge_us = find_edge_us(charge, now_us)
    if stored is None or stored[1] < edge_us:
        return (edge_us, edge_us, 0, 0, NONE_OLDER)
    return stored


def read_log(stored: State | None, window_us: int, now_us: int) -> State:
    """A SLIDING_WINDOW counter without the entries that are too old."""
    if stored is None or stored[0] <= now_us:
        return EMPTY_LOG
    expires_us, edge_us, count, extra, older = stored
    if not older or older[0] + window_us > now_us:
        return stored
    gone = 0
    while gone < len(older) and older[gone] + window_us <= now_us:
        count -= older[gone + 1]
        gone += 2
    return (expires_us, edge_us, count, extra, older[gone:])


def _read_burst(charge: Charge, stored: State | None, now_us: int) -> State:
    limit = charge.limit
    if not 0 <= limit <= MAX_BURST:
        raise ValueError(f"a burst of {limit} is not in 0 to {MAX_BURST}")
    if stored is None or stored[0] <= now_us:
        return (now_us, now_us, 0, limit, NONE_OLDER)
    if stored[3] != limit:
        return (stored[0], stored[0], 0, limit, NONE_OLDER)
    return stored


def room_in(charge: Charge, state: State, now_us: int) -> int:
    """The largest cost that fits now."""
    if charge.algorithm is not _BURST:
        return max(0, charge.limit - state[2])
    if charge.limit == 0:
        return 0
    full = charge.window_us * charge.limit
    return max(0, (full - _backlog(state, now_us)) // charge.window_us)


def add_cost(charge: Charge, state: State, now_us: int) -> State:
    """The counter after the cost is taken."""
    if charge.algorithm is _SLIDING:
        return add_to_log(charge, state, now_us)
    if charge.algorithm is not _BURST:
        expires_us, edge_us, count, extra, older = state
        return (expires_us, edge_us, count + charge.cost, extra, older)
    if charge.limit == 0:
        return state
    before = _backlog(state, now_us)
    after = before + charge.cost * charge.window_us
    full = charge.window_us * charge.limit
    if after > full:
        after = max(before, full)
    return _burst_state(after, charge.limit, now_us)


def add_to_log(charge: Charge, state: State, now_us: int) -> State:
    """`add_cost` of a SLIDING_WINDOW."""
    _, edge_us, count, extra, older = state
    window_us, cost = charge.window_us, charge.cost
    end_us = now_us + charge.hold_us
    if end_us < edge_us:  # noqa: PLR1730  (`max` takes longer, on the way of every taking)
        end_us = edge_us
    count += cost
    if end_us != edge_us and extra:
        quantum_us = -(-window_us // QUANTA) if charge.limit > QUANTA or count > charge.limit else 1
        if end_us // quantum_us != edge_us // quantum_us:
            older = older + array("q", (edge_us, extra))  # `+=` would change what is stored
            extra = 0
    return (end_us + window_us, end_us, count, extra + cost, older)


def wait_us(charge: Charge, state: State, now_us: int) -> int:
    """The time until the cost fits, when it does not fit now and nothing else is taken."""
    if charge.cost > charge.limit:
        return reset_us(charge, state, now_us) or charge.window_us
    if charge.algorithm is _BURST:
        full = charge.window_us * charge.limit
        missing = _backlog(state, now_us) + charge.cost * charge.window_us - full
        return -(-missing // charge.limit)
    _, edge_us, count, _, older = state
    if charge.algorithm is not _SLIDING:
        return edge_us - now_us
    missing = count + charge.cost - charge.limit
    for place in range(0, len(older), 2):
        missing -= older[place + 1]
        if missing <= 0:
            return older[place] + charge.window_us - now_us
    return edge_us + charge.window_us - now_us


def reset_us(charge: Charge, state: State, now_us: int) -> int:
    """The time until the full limit is available again, or the window ends."""
    if charge.algorithm is _SLIDING:
        return state[0] - now_us if state[2] else 0
    if charge.algorithm is _BURST:
        # The backlog, rounded up: such a counter expires when it has drained.
        return max(0, state[0] - now_us) if charge.limit else 0
    return state[1] - now_us


def take_back(charge: Charge, stored: State, at_us: int | None, now_us: int) -> State:
    """The counter after what was taken at `at_us` (None: just now) is given back."""
    if charge.algorithm is _SLIDING:
        return _take_from_log(charge, read_log(stored, charge.window_us, now_us), at_us, now_us)
    taken_us = now_us if at_us is None else at_us
    if charge.algorithm is _BURST:
        state = _read_burst(charge, stored, now_us)
        is_hidden = not charge.enforced and (at_us is None or state[1] >= at_us + charge.window_us)
        if charge.limit == 0 or is_hidden:
            return stored
        drained = max(0, now_us - taken_us) * charge.limit
        refund = max(0, charge.cost * charge.window_us - drained)
        return _burst_state(max(0, _backlog(state, now_us) - refund), charge.limit, now_us)
    expires_us, edge_us, count, extra, older = stored
    if find_edge_us(charge, taken_us) != edge_us:
        return stored
    return (expires_us, edge_us, max(0, count - charge.cost), extra, older)


def _take_from_log(charge: Charge, state: State, at_us: int | None, now_us: int) -> State:
    expires_us, edge_us, count, extra, older = state
    window_us = charge.window_us
    place = 0
    if at_us is not None:
        at_us += charge.hold_us
        while place < len(older) and older[place] < at_us:
            place += 2
        end_us = older[place] if place < len(older) else edge_us
        latest_us = at_us + 2 * find_quantum_us(window_us)
        if at_us <= now_us - window_us or not at_us <= end_us < latest_us:
            return state
    if place == len(older):
        back = min(charge.cost, extra)
        if back < extra:
            return (expires_us, edge_us, count - back, extra - back, older)
        if not older:
            return EMPTY_LOG
        edge_us, extra = older[-2:]
        return (edge_us + window_us, edge_us, count - back, extra, older[:-2])
    back = min(charge.cost, older[place + 1])
    kept = older[: place + 2]
    if back < older[place + 1]:
        kept[place + 1] -= back
    else:
        del kept[place:]
    return (expires_us, edge_us, count - back, extra, kept + older[place + 2 :])


def _backlog(state: State, now_us: int) -> int:
    """How far the arrival time is ahead, in microseconds times the limit."""
    return max(0, (state[1] - now_us) * state[3] + state[2])


def _burst_state(backlog: int, limit: int, now_us: int) -> State:
    whole_us, fraction = divmod(backlog, limit)
    arrival_us = now_us + whole_us
    return (arrival_us + (fraction > 0), arrival_us, fraction, limit, NONE_OLDER)
