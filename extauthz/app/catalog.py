"""Opens the source of the catalog that the settings name."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extauthz.catalog.files.source import FileCatalogSource
from extauthz.catalog.wso2.messages import DOCUMENT, Parameters
from extauthz.documents.document import read_file
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import Catalog
from extauthz.model.limits import US_PER_S
from extauthz.policy.authentication.revocations import Revocations
from extauthz.ports import CatalogSource
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState
from extauthz.settings.catalog import Wso2Settings
from extauthz.settings.reading import read_secret_file
from extauthz.settings.tree import Settings
from extauthz.telemetry import names

if TYPE_CHECKING:
    from extauthz.catalog.wso2.source import Wso2CatalogSource
    from extauthz.telemetry.metrics import Metrics


@asynccontextmanager
async def open_source(
    settings: Settings,
    *,
    has_pepper: bool,
    revocations: Revocations | None = None,
    is_command: bool = False,
) -> AsyncIterator[CatalogSource]:
    """Opens the source, and closes it at the end of the block.

    Args:
        is_command: whether a command asks, which reads the last good copy of an API Manager where
            there is one, and the API Manager itself where there is none.
        revocations: are told of tokens that are revoked between two catalogs.
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.

    Raises:
        ConfigError: a folder that the settings name cannot be used.
    """
    catalog = settings.catalog
    copy = find_copy(settings) if is_command else None
    if catalog.wso2 is None or copy is not None:
        files = catalog.files if copy is None else (*catalog.files, copy)
        yield FileCatalogSource(files, has_pepper=has_pepper)
        return
    from extauthz.catalog.wso2.source import Wso2CatalogSource

    wso2 = catalog.wso2
    with ExitStack() as stack:
        parameters = Parameters(
            url=wso2.url,
            username=wso2.username,
            password_file=str(wso2.password_file),
            ca_file="" if wso2.ca is None else str(wso2.ca),
            tenants=wso2.tenant_domains,
            folder=str(_open_folder(wso2, stack)),
            refresh_s=wso2.refresh / US_PER_S,
            timeout_s=wso2.timeout / US_PER_S,
            announce=wso2.announce,
            labels=wso2.labels,
            **_write_brokers(wso2),
        )
        source = Wso2CatalogSource(
            catalog.files,
            parameters,
            has_pepper=has_pepper,
            accept_tokens_before_revocations=wso2.accept_tokens_before_revocations,
            start_s=wso2.start_timeout / US_PER_S,
            **({} if revocations is None else {"on_revoked": revocations.revoke_token}),
        )
        try:
            yield source
        finally:
            await source.close()


def find_copy(settings: Settings) -> Path | None:
    """The last good copy of the API Manager; None when there is none."""
    wso2 = settings.catalog.wso2
    if wso2 is None or wso2.state_dir is None:
        return None
    copy = wso2.state_dir / DOCUMENT
    return copy if copy.exists() else None


async def load_catalog(settings: Settings, *, has_pepper: bool) -> Catalog:
    """The catalog as a command needs it; see `is_command` of `open_source`.

    Raises:
        ConfigError, CatalogError: there is no valid catalog.
    """
    async with open_source(settings, has_pepper=has_pepper, is_command=True) as source:
        return await source.load()


def check_api_manager(settings: Settings) -> None:
    """Checks the files that `catalog.wso2` names, without a connection.

    Raises:
        ConfigError: one of them cannot be used.
    """
    wso2 = settings.catalog.wso2
    if wso2 is None:
        return
    problems: list[Problem] = []
    for file in (wso2.password_file, *([] if wso2.events is None else [wso2.events.password_file])):
        if file is None:
            continue
        try:
            read_secret_file(file)
        except ConfigError as exc:
            problems += exc.problems
    for ca in (wso2.ca, *([] if wso2.events is None else [wso2.events.ca])):
        if ca is None:
            continue
        try:
            ssl.create_default_context(cadata=read_file(ca).decode("ascii"))
        except ConfigError as exc:
            problems += exc.problems
        except (ssl.SSLError, ValueError):
            problems.append(Problem(file=str(ca), message="holds no certificates in PEM"))
    if problems:
        raise ConfigError(problems)
    _write_brokers(wso2)


def _write_brokers(wso2: Wso2Settings) -> dict[str, Any]:
    """The parameters about events.

    Raises:
        ConfigError: what listens to them is not installed.
    """
    events = wso2.events
    if events is None:
        return {}
    if find_spec("pika") is None:
        message = "needs pika, which is missing: install extauthz[wso2], or remove it"
        raise ConfigError([Problem(path="catalog.wso2.events", message=message)])
    ca = events.ca or wso2.ca
    return {
        "brokers": events.urls,
        "broker_username": events.username or wso2.username,
        "broker_password_file": str(events.password_file or wso2.password_file),
        "broker_ca_file": "" if ca is None else str(ca),
    }


def _open_folder(wso2: Wso2Settings, stack: ExitStack) -> Path:
    """The folder of the last good copy, which only this user may enter."""
    if wso2.state_dir is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extauthz-wso2-")))
    try:
        wso2.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = wso2.state_dir / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as exc:
        message = f"{wso2.state_dir} cannot be written to: {exc.strerror}"
        raise ConfigError([Problem(path="catalog.wso2.state_dir", message=message)]) from exc
    return wso2.state_dir


def watch_source(metrics: Metrics, source: CatalogSource) -> None:
    """Shows how an API Manager is followed; nothing for files alone."""
    wso2 = _find_wso2(source)
    if wso2 is None:
        return
    metrics.gauge(
        names.SOURCE_READ,
        "Unix time at which the API Manager was last read; 0 before the first time.",
        lambda: wso2.pulled_at_s,
    )
    metrics.gauge(
        names.SOURCE_UP,
        "1 while the API Manager can be read and all of its brokers are connected.",
        lambda: int(wso2.is_up),
    )
    metrics.gauge(
        names.SOURCE_LEFT_OUT,
        "Rows of the API Manager that are not in the catalog.",
        lambda: 0 if wso2.last_pull is None else wso2.last_pull.left_out_count,
    )
    metrics.count(
        names.SOURCE_FAILURES,
        "Readings of the API Manager that failed.",
        lambda: wso2.failures,
    )
    metrics.count(
        names.SOURCE_EVENTS, "Events of the API Manager.", lambda: sum(wso2.events.values())
    )


def check_source(source: CatalogSource) -> list[ReadyCheck]:
    """The check of readiness for an API Manager; empty for files alone."""
    wso2 = _find_wso2(source)
    if wso2 is None:
        return []
    facts: dict[str, str | int | float | bool | None] = {
        "read_at": int(wso2.pulled_at_s),
        "revocations_known": wso2.last_pull is not None,
        "failures": wso2.failures,
        "brokers_connected": sum(wso2.brokers.values()),
        "brokers": len(wso2.brokers),
    }
    state = ReadyState.READY if wso2.is_up else ReadyState.DEGRADED
    return [ReadyCheck(name="api_manager", state=state, facts=facts)]


def _find_wso2(source: CatalogSource) -> Wso2CatalogSource | None:
    if isinstance(source, FileCatalogSource):
        return None
    from extauthz.catalog.wso2.source import Wso2CatalogSource

    return source if isinstance(source, Wso2CatalogSource) else None
