"""Finds requests that two doors decided differently, from lines of the decision log.

Decisions of both doors with the same request id, method and path are one pair. A door may be asked
more than once for a request (Mixer's check and quota, a retry): its answer is then the denial, if
there was any. A request that only one door saw is no difference; it is counted, as a proxy that
caches Mixer's answers asks Mixer less often.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

MAX_WAITING: Final = 1_000_000
"""Requests that may wait for the other door; beyond that the oldest count as seen by one only."""
MAX_EXAMPLES: Final = 3

ENVOY: Final = "envoy"
MIXER: Final = "mixer"

_Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """The answers of the doors to the same requests: ``allow`` or the reason of the denial."""

    api: str
    envoy: str
    mixer: str


@dataclass(slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        equal: requests that both doors answered alike, by that answer.
        different: requests that they answered differently.
        examples: ids of some of these requests.
        only: requests that one door alone saw, by its name.
        unusable: lines that are no decision, or name no request.
    """

    equal: Counter[str] = field(default_factory=Counter)
    different: Counter[Difference] = field(default_factory=Counter)
    examples: dict[Difference, list[str]] = field(default_factory=dict)
    only: Counter[str] = field(default_factory=Counter)
    unusable: int = 0


@dataclass(slots=True)
class _Seen:
    """The answers of the doors to one request so far."""

    api: str = ""
    answers: dict[str, str] = field(default_factory=dict)


def compare_doors(lines: Iterable[str]) -> Comparison:
    """Compares the lines of both doors, in any order."""
    found = Comparison()
    waiting: OrderedDict[_Key, _Seen] = OrderedDict()
    for line in lines:
        record = _read_record(line)
        if record is None:
            found.unusable += 1
            continue
        key = (record["request"], record["method"], record["path_hash"])
        seen = waiting.setdefault(key, _Seen())
        seen.api = seen.api or f"{record['api']} {record['version']}".strip()
        answer = record["reason"] or "allow"
        if seen.answers.get(record["door"], "allow") == "allow":
            seen.answers[record["door"]] = answer
        if len(waiting) > MAX_WAITING:
            _conclude(found, *waiting.popitem(last=False))
    for key, seen in waiting.items():
        _conclude(found, key, seen)
    return found


def _conclude(found: Comparison, key: _Key, seen: _Seen) -> None:
    envoy, mixer = seen.answers.get(ENVOY), seen.answers.get(MIXER)
    if envoy is None or mixer is None:
        found.only[MIXER if envoy is None else ENVOY] += 1
    elif envoy == mixer:
        found.equal[envoy] += 1
    else:
        difference = Difference(seen.api, envoy, mixer)
        found.different[difference] += 1
        examples = found.examples.setdefault(difference, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(key[0])


def _read_record(line: str) -> Mapping[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("door") not in {ENVOY, MIXER}:
        return None
    fields = ("request", "method", "path_hash", "api", "version", "reason")
    if not all(isinstance(record.get(name), str) for name in fields) or not record["request"]:
        return None
    return record
