"""Says what an error reply means: whether anything was charged, and whether to reconnect.

Redis, Valkey and the proxies in front of them begin an error with a word in capitals, the code.
Most codes are sent before a script runs. Four are sent at the first command of a script that
writes, and never after one that has written (`scriptVerifyWriteCommandAllow` and `scriptVerifyOOM`
in Redis's script.c): MISCONF, NOREPLICAS, OOM and READONLY. Redis 6 reports them inside an ``ERR
Error running script``. With all of these it is certain that nothing was charged.

A request whose error is not in the table may have been charged. That is the safe assumption: such
a request is never charged a second time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from redis.exceptions import ResponseError

SLOTS: Final = 16_384
"""Hash slots of a cluster."""

_CODE: Final = re.compile(r"([A-Z][A-Z0-9]+)(?: |$)")
_IN_SCRIPT: Final = re.compile(r"\bscript: [0-9a-f]{40}, on |^ERR Error running script\b")
_INNER_CODE: Final = re.compile(r"@user_script: ?\d+: -([A-Z]+) ")
_REDIRECT: Final = re.compile(r"(?:MOVED|ASK) (\d{1,5}) (\S*):(\d{1,5})")


class RedisRefusal(ResponseError):
    """An error that the server replied.

    Attributes:
        text: as it came.
        code: its first word, like ``READONLY``; ``ERR`` also when there is none.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        found = _CODE.match(text)
        self.code = found[1] if found else "ERR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a refusal means for the script call.

    Attributes:
        charged_nothing: the call certainly charged nothing.
        is_elsewhere: the connection is of no use any more: the server is no longer the primary,
            or does not accept this client. A new connection finds the right server or the error.
        is_transient: trying again later may help.
        advice: what an operator can do, when the server's text does not say it.
    """

    charged_nothing: bool = True
    is_elsewhere: bool = False
    is_transient: bool = True
    advice: str = ""


_UNKNOWN: Final = Meaning(charged_nothing=False)
_NOTHING: Final = Meaning()
_ELSEWHERE: Final = Meaning(is_elsewhere=True)
_NO_ACCESS: Final = Meaning(is_elsewhere=True, is_transient=False)
CLUSTER: Final = Meaning(
    is_transient=False,
    advice="it is a node of a cluster, or leads to one: write redis+cluster:// in counters.url",
)

REFUSALS: Final[dict[str, Meaning]] = {
    # At the first write of a script.
    "MISCONF": _NOTHING,  # it cannot write its data to disk
    "NOREPLICAS": _ELSEWHERE,  # min-replicas-to-write; a primary that was cut off says it, too
    "OOM": _NOTHING,
    "READONLY": _ELSEWHERE,
    # Before the script runs.
    "ASK": _NOTHING,
    "BUSY": _NOTHING,  # somebody's script runs for too long
    "CLUSTERDOWN": _ELSEWHERE,
    "CROSSSLOT": CLUSTER,
    "DENIED": _NO_ACCESS,  # protected mode
    "EXECABORT": _NOTHING,
    "LOADING": _ELSEWHERE,
    "MASTERDOWN": _ELSEWHERE,
    "MOVED": _NOTHING,
    "NOAUTH": _NO_ACCESS,
    "NOPERM": Meaning(is_transient=False),
    "NOPROTO": Meaning(is_transient=False),
    "NOSCRIPT": _NOTHING,
    "REDIRECT": _ELSEWHERE,  # a replica of Valkey 8
    "TRYAGAIN": _NOTHING,  # a slot is being moved
    "UNBLOCKED": _NOTHING,
    "WRONGPASS": _NO_ACCESS,
    # Sentinels: a URL that takes one for a Redis.
    "IDONTKNOW": _NOTHING,
    "INPROG": _NOTHING,
    "NOGOODSLAVE": _NOTHING,
    "NOQUORUM": _NOTHING,
    # Answers to SCRIPT KILL and FUNCTION KILL, which are never asked here.
    "NOTBUSY": _NOTHING,
    "UNKILLABLE": _NOTHING,
}
"""By code. The meaning of ERR depends on its text; see `_ERRORS`."""


class ClusterFound(RedisRefusal):
    """A node of a cluster where a single Redis was expected."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text} ({CLUSTER.advice})")
        self.code = "CROSSSLOT"


_PROXY: Final = Meaning(
    is_transient=False,
    advice="the server or a proxy before it does not know a command; EVAL and EVALSHA are needed",
)
_ERRORS: Final[tuple[tuple[str, Meaning], ...]] = (
    ("max number of clients", _ELSEWHERE),
    ("max number of clients + cluster connections", _ELSEWHERE),
    ("unknown command", _PROXY),
    ("unsupported command", _PROXY),
    ("wrong number of arguments", Meaning(is_transient=False)),
    ("invalid DB index", Meaning(is_transient=False)),
    ("DB index is out of range", Meaning(is_transient=False)),
    ("Client sent AUTH, but no password is set", _NO_ACCESS),
    ("AUTH ", _NO_ACCESS),
    ("operation not permitted", _NO_ACCESS),
    ("invalid password", _NO_ACCESS),
    ("Protocol error", _ELSEWHERE),
    # Envoy's redis_proxy: no connection was there to send it on.
    ("no upstream host", _NOTHING),
    ("invalid request", Meaning(is_transient=False)),
    # twemproxy: connecting to the server behind it was refused.
    ("Connection refused", _NOTHING),
)
"""By the beginning of the text after the code; the first that fits counts."""
_KILLED: Final = "Script killed by user"
"""Only a script that has written nothing can be killed."""


def find_meaning(refusal: RedisRefusal) -> Meaning:
    """The meaning of a refused call of the counting script."""
    text, code = refusal.text, refusal.code
    if _IN_SCRIPT.search(text):
        inner = _INNER_CODE.search(text)
        code = inner[1] if inner else code
        if code in ("MISCONF", "NOREPLICAS", "OOM", "READONLY"):
            return REFUSALS[code]
        return _NOTHING if _KILLED in text else _UNKNOWN
    meaning = REFUSALS.get(code)
    if meaning is not None:
        return meaning
    text = text.removeprefix("ERR ")
    for begin, meant in _ERRORS:
        if text.startswith(begin):
            return meant
    return _NOTHING if _KILLED in text else _UNKNOWN


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a cluster's node redirects a request to. An empty host means the node's own."""

    is_moved: bool
    slot: int
    host: str
    port: int


def find_redirect(refusal: RedisRefusal) -> Redirect | None:
    """Reads a MOVED or an ASK; None for anything else, or when it is not valid."""
    found = _REDIRECT.fullmatch(refusal.text)
    if found is None:
        return None
    slot, port = int(found[1]), int(found[3])
    if slot >= SLOTS or not 0 < port < 65536:
        return None
    return Redirect(refusal.code == "MOVED", slot, found[2].strip("[]"), port)
