"""The settings of the log: what is logged, how, and where decisions are written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from extauthz.documents.document import StrictModel, printable
from extauthz.settings.stores import RedisAccessSettings
from extauthz.telemetry.decision_log.masking import AddressMask, UserMask


class DecisionStreamSettings(RedisAccessSettings):
    """A stream of Redis that gets each decision. Left out of it: what is said of the counters'."""

    key: Annotated[str, printable(1, 128)] = "decisions"
    """Name of the stream, behind the prefix."""
    max_length: int = Field(default=100_000, ge=1, le=100_000_000)
    """Decisions that the stream keeps, and a few more; older ones are removed."""


class DecisionLogSettings(StrictModel):
    """Which decisions are written, where, and what of them is masked."""

    file: Path | None = None
    """File that gets each decision as a line of JSON, for audits and `extauthz compare`. A file's
    name in place of this whole section means the same."""
    stdout: bool = False
    """Write the lines to standard output, too."""
    redis: DecisionStreamSettings | None = None
    """A stream of Redis that gets each decision."""
    otlp: bool = False
    """Send each decision to the collector of OpenTelemetry's (needs extauthz[otlp])."""
    allow_ratio: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    """Share of the allowed requests that is written; 0 for none of them."""
    deny_ratio: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    """Share of the denied requests that is written."""
    client_address: AddressMask = AddressMask.NETWORK
    """full; network: /24 of IPv4, /48 of IPv6; hash; or off."""
    user: UserMask = UserMask.HASH
    """full, hash or off."""
    hash_key_file: Path | None = None
    """File with a secret, the same in all replicas, under which users, consumer keys and addresses
    are hashed. Left out: whoever knows a name can calculate its hash."""

    @property
    def has_sink(self) -> bool:
        """Whether decisions are written anywhere."""
        return self.file is not None or self.redis is not None or self.stdout or self.otlp


def _read_short_form(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


class LogSettings(StrictModel):
    """What is logged, and which decisions."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important messages that are still logged."""
    format: Literal["text", "json"] = "text"
    """text: lines for people; json: a JSON object a line, with OpenTelemetry's names."""
    output: Literal["stderr", "stdout"] = "stderr"
    """Standard error or standard output."""
    otlp: bool = False
    """Send the lines to the collector of OpenTelemetry's, too (needs extauthz[otlp])."""
    decisions: Annotated[
        DecisionLogSettings | None,
        BeforeValidator(_read_short_form, json_schema_input_type=DecisionLogSettings | str | None),
    ] = None
    """Where decisions are written: a file's name, or a section."""
