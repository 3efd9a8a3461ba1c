"""What an error reply means: was anything charged, and is another server to be asked?

Redis, Valkey and the proxies before them begin an error with a word in capitals, the code. Most
codes are said before a script runs. Four are said at the first command of a script that writes,
and never after one that has written (`scriptVerifyWriteCommandAllow` and `scriptVerifyOOM` in
Redis's script.c): MISCONF, NOREPLICAS, OOM and READONLY. Redis 6 tells of them inside of an
``ERR Error running script``. So with all of these it is sure that nothing was charged.

What is not in the table may have been charged. That is the side to err on: such a request is
never charged a second time.
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
    """What a refusal says of the script call that was refused.

    Attributes:
        charged_nothing: it surely charged nothing.
        is_elsewhere: the connection is of no use any more: the server is no primary now, or it
            forgets or does not know us. Connecting anew finds the right one, or says why not.
        is_transient: asking again later may help.
        advice: what to do, where the server's own words do not say it.
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
"""By code. ERR means as many things as there are texts; see `_ERRORS`."""


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
"""How texts begin, behind the code; the first that fits."""
_KILLED: Final = "Script killed by user"
"""Only a script that has written nothing can be killed."""


def find_meaning(refusal: RedisRefusal) -> Meaning:
    """What the refusal of a call of the counting script means."""
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
    """Where a cluster's node sends a request on to. The host is empty when it is its own."""

    is_moved: bool
    slot: int
    host: str
    port: int


def find_redirect(refusal: RedisRefusal) -> Redirect | None:
    """What a MOVED or an ASK says; None for anything else, or one that makes no sense."""
    found = _REDIRECT.fullmatch(refusal.text)
    if found is None:
        return None
    slot, port = int(found[1]), int(found[3])
    if slot >= SLOTS or not 0 < port < 65536:
        return None
    return Redirect(refusal.code == "MOVED", slot, found[2].strip("[]"), port)
