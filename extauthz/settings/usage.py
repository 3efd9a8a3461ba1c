"""Settings of usage: what proxies report of finished requests, and where it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from extauthz.documents.document import Fits, StrictModel, printable
from extauthz.settings.stores import RedisAccessSettings
from extauthz.telemetry.decision_log.masking import AddressMask


class UsageFileSettings(StrictModel):
    """A file with a line of JSON for each finished request."""

    path: Path
    """The file, in a folder that is there. Each of several workers writes to a file of its own:
    usage.jsonl becomes usage.1.jsonl, usage.2.jsonl and so on."""
    max_bytes: int = Field(default=268_435_456, ge=65_536)
    """When the file has this size, it gets the time as a suffix, and a new one begins."""
    keep: int = Field(default=10, ge=1, le=10_000)
    """How many of the older files stay; those before them are deleted."""


class UsageStreamSettings(RedisAccessSettings):
    """A stream of Redis that gets each request. Left out of it: what is said of the counters'."""

    key: Annotated[str, printable(1, 128)] = "usage"
    """Name of the stream, behind the prefix."""
    max_length: int = Field(default=1_000_000, ge=1, le=100_000_000)
    """Requests that the stream keeps, and a few more; older ones are removed."""


class UsagePluginSettings(StrictModel):
    """A sink of your own, in Python."""

    factory: Annotated[
        str,
        Fits(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", "must be module:function, like billing.sink:open"),
    ]
    """module:function; it is called with the options, and gives the sink."""
    options: dict[str, str] = Field(default_factory=dict)
    """What the function is called with."""


class UsageSettings(StrictModel):
    """What becomes of the reports of finished requests: Envoy's access logs and Mixer's reports."""

    file: UsageFileSettings | None = None
    """Lines of JSON in a file. Left out: no file is written."""
    redis: UsageStreamSettings | None = None
    """A stream of Redis. Left out: none is written."""
    otlp: bool = False
    """Send each request to the collector of OpenTelemetry's (needs extauthz[otlp])."""
    plugin: UsagePluginSettings | None = None
    """A sink of your own. Left out: there is none."""
    client_address: AddressMask = AddressMask.NETWORK
    """What is written of a client's address: full, network (/24 of IPv4, /48 of IPv6), hash or
    off."""
    hash_key_file: Path | None = None
    """File with a secret, the same in all replicas, under which consumer keys and addresses are
    hashed. Left out: whoever knows a name can calculate its hash."""
