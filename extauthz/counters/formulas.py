"""The arithmetic of limits: what a counter holds, and what can still be taken from it.

Every store computes exactly this, whatever language it does it in. All numbers are integers,
times are microseconds since the Unix epoch, and all that is stored fits 53 bits, so that a
script with only doubles can do the same. W is the window, N the limit, c the cost, `//` rounds
down.

A counter is four integers, `(expires, edge, count, extra)`. From `expires` on it says nothing
that an absent counter does not say. Before it is read it is brought forward to now, in
`read_state`; nothing is stored for that.

FIXED_WINDOW, CALENDAR: `edge` is the window's end, `count` what was taken in it.
    edge   = (now // W + 1) * W; CALENDAR: the first of `Charge.bounds` after now
    a later edge begins a new window with count 0
    room   = N - count
    wait   = reset = edge - now

SLIDING_WINDOW: `edge` and `count` as above, `extra` is the count of the window before.
    one edge later:  extra = count, count = 0; more than one: both 0
    weight = ceil(extra * ((W - elapsed) / W)), in doubles, in just this order;
             elapsed = now - (edge - W)
    room   = N - weight - count
    wait   = to the first microsecond at which weight and count leave room for c, found from
             W - W * (N - c - count) // extra and then moved to where the doubles agree
    reset  = to edge + W when count > 0, to edge when only extra > 0, else 0

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

Giving back needs the time of the taking. A window's count falls only while that window is the
current one (SLIDING_WINDOW: or the one before). A BURST counter forgets
max(0, c * T - (now - taken at)): the rest has drained in any case, so giving back never makes
more room than there would be without the taking.
"""

from __future__ import annotations

from math import ceil
from typing import Final, TypeAlias

from extauthz.errors import CounterStoreError
from extauthz.model.limits import MAX_BURST, Algorithm, Charge

State: TypeAlias = tuple[int, int, int, int]
"""`(expires, edge, count, extra)`, see above."""

# Here, as a look into an enum takes 40 ns more than one into a module.
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


def read_state(charge: Charge, stored: State | None, now_us: int) -> State:
    """A counter as it stands now; all zero counts when nothing is stored."""
    algorithm, window_us = charge.algorithm, charge.window_us
    if algorithm is _BURST:
        return _read_burst(charge, stored, now_us)
    if algorithm is _CALENDAR:
        edge_us = find_edge_us(charge, now_us)
    else:
        edge_us = now_us - now_us % window_us + window_us  # as `find_edge_us`, without the call
    if stored is None:
        return (edge_us, edge_us, 0, 0)
    if stored[1] >= edge_us:
        return stored
    if algorithm is _SLIDING and stored[1] + window_us == edge_us:
        return (edge_us, edge_us, 0, stored[2])
    return (edge_us, edge_us, 0, 0)


def _read_burst(charge: Charge, stored: State | None, now_us: int) -> State:
    limit = charge.limit
    if not 0 <= limit <= MAX_BURST:
        raise ValueError(f"a burst of {limit} is not in 0 to {MAX_BURST}")
    if stored is None or stored[0] <= now_us:
        return (now_us, now_us, 0, limit)
    if stored[3] != limit:
        return (stored[0], stored[0], 0, limit)
    return stored


def room_in(charge: Charge, state: State, now_us: int) -> int:
    """The largest cost that fits now."""
    _, edge_us, count, extra = state
    if charge.algorithm is _BURST:
        if charge.limit == 0:
            return 0
        full = charge.window_us * charge.limit
        room = (full - _backlog(state, now_us)) // charge.window_us
    else:
        if charge.algorithm is _SLIDING and extra:
            count += weigh(extra, charge.window_us, now_us - edge_us + charge.window_us)
        room = charge.limit - count
    return max(0, room)


def add_cost(charge: Charge, state: State, now_us: int) -> State:
    """The counter after the cost is taken."""
    expires_us, edge_us, count, extra = state
    if charge.algorithm is _BURST:
        if charge.limit == 0:
            return state
        before = _backlog(state, now_us)
        after = before + charge.cost * charge.window_us
        full = charge.window_us * charge.limit
        if after > full:
            after = max(before, full)
        return _burst_state(after, charge.limit, now_us)
    if charge.algorithm is _SLIDING:
        expires_us = edge_us + charge.window_us
    return (expires_us, edge_us, count + charge.cost, extra)


def wait_us(charge: Charge, state: State, now_us: int) -> int:
    """How long until the cost fits, when it does not fit now and nothing else is taken."""
    if charge.cost > charge.limit:
        return reset_us(charge, state, now_us) or charge.window_us
    _, edge_us, count, extra = state
    if charge.algorithm is _BURST:
        full = charge.window_us * charge.limit
        missing = _backlog(state, now_us) + charge.cost * charge.window_us - full
        return -(-missing // charge.limit)
    if charge.algorithm is _SLIDING:
        room = charge.limit - charge.cost
        if room >= count:
            start_us = edge_us - charge.window_us
            return start_us + _fits_from(extra, room - count, charge.window_us) - now_us
        return edge_us + _fits_from(count, room, charge.window_us) - now_us
    return edge_us - now_us


def reset_us(charge: Charge, state: State, now_us: int) -> int:
    """How long until the full limit is there again, or the window ends."""
    _, edge_us, count, extra = state
    if charge.algorithm is _BURST:
        # The backlog, rounded up: such a counter expires when it has drained.
        return max(0, state[0] - now_us) if charge.limit else 0
    if charge.algorithm is _SLIDING:
        if count:
            return edge_us + charge.window_us - now_us
        return edge_us - now_us if extra else 0
    return edge_us - now_us


def take_back(charge: Charge, stored: State, at_us: int, now_us: int) -> State:
    """The counter after what was taken at `at_us` is given back."""
    expires_us, edge_us, count, extra = stored
    if charge.algorithm is _BURST:
        if charge.limit == 0:
            return stored
        state = _read_burst(charge, stored, now_us)
        drained = max(0, now_us - at_us) * charge.limit
        refund = max(0, charge.cost * charge.window_us - drained)
        return _burst_state(max(0, _backlog(state, now_us) - refund), charge.limit, now_us)
    taken_edge_us = find_edge_us(charge, at_us)
    if taken_edge_us == edge_us:
        return (expires_us, edge_us, max(0, count - charge.cost), extra)
    if charge.algorithm is _SLIDING and taken_edge_us + charge.window_us == edge_us:
        return (expires_us, edge_us, count, max(0, extra - charge.cost))
    return stored


def weigh(before: int, window_us: int, elapsed_us: int) -> int:
    """How much of the previous window's count still counts. Every store uses this expression."""
    return ceil(before * ((window_us - elapsed_us) / window_us))


def _fits_from(before: int, room: int, window_us: int) -> int:
    """The first microsecond of a window at which the previous count weighs at most `room`."""
    if before <= room:
        return 0
    elapsed_us = window_us - window_us * room // before
    # Rounding in `weigh` moves the exact answer by a microsecond at most; it falls with time,
    # so the first one that fits is found from either side.
    while weigh(before, window_us, elapsed_us) > room:
        elapsed_us += 1
    while elapsed_us and weigh(before, window_us, elapsed_us - 1) <= room:
        elapsed_us -= 1
    return elapsed_us


def _backlog(state: State, now_us: int) -> int:
    """How far the arrival time is ahead, in microseconds times the limit."""
    return max(0, (state[1] - now_us) * state[3] + state[2])


def _burst_state(backlog: int, limit: int, now_us: int) -> State:
    whole_us, fraction = divmod(backlog, limit)
    arrival_us = now_us + whole_us
    return (arrival_us + (fraction > 0), arrival_us, fraction, limit)
