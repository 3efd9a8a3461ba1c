"""Chooses the decisions that are logged: a share of those that allow, and a share of the denials.

Decisions about the same request are chosen together, at both doors and in all replicas: the request
id decides, else the trace id. A client may be able to choose these ids; with a key it cannot know
which of them are logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from extauthz.model.decision import Allow, Decision
from extauthz.model.identity import Secret
from extauthz.telemetry.decision_log.record import LoggedDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSampling:
    """Which decisions are logged. The ratios are from 0 (none) to 1 (all)."""

    allow_ratio: float = 1.0
    deny_ratio: float = 1.0
    key: Secret | None = None

    def find_ratio(self, decision: Decision) -> float:
        """The share of decisions like this one that is logged."""
        return self.allow_ratio if isinstance(decision, Allow) else self.deny_ratio

    def takes(self, noted: LoggedDecision, ratio: float) -> bool:
        """Whether a decision is in its share."""
        if ratio >= 1:
            return True
        name = noted.request or noted.trace_id or noted.decision
        key = b"" if self.key is None else self.key.digest()
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
        return int.from_bytes(digest, "big") < ratio * (1 << 64)
