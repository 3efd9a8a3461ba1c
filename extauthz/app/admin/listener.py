"""Opens the admin listener from the settings, with the API where the settings open it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Final

from extauthz.app.admin.processes import Processes
from extauthz.serving.admin.readiness import ReadyCheck
from extauthz.serving.listen import ListenAddress, is_local, read_listen_address
from extauthz.serving.tls import TlsFiles
from extauthz.settings.reading import read_token_file
from extauthz.settings.tree import Settings

if TYPE_CHECKING:
    from extauthz.serving.admin.access import Access
    from extauthz.serving.admin.http import Api

MIN_TOKEN: Final = 20
"""Characters that a token has at least: it is not to be guessed."""


@asynccontextmanager
async def running_admin(
    settings: Settings,
    processes: Processes,
    *,
    checks: Callable[[], Awaitable[Sequence[ReadyCheck]]],
    metrics: Callable[[], Awaitable[tuple[bytes, str]]],
) -> AsyncIterator[None]:
    """Serves the admin listener for the block, when the settings name an address for it.

    Args:
        settings: of the installation.
        processes: answer the API's questions.
        checks: those of ``/readyz``.
        metrics: the text of ``/metrics``, and its content type.

    Raises:
        ListenError: the address cannot be listened on.
        ConfigError: a file that the settings name cannot be used.
    """
    if settings.listen.admin is None:
        yield
        return
    from extauthz.serving.admin.listener import AdminListener  # brings aiohttp

    address = read_listen_address(settings.listen.admin)
    tls = read_admin_tls(settings)
    admin = AdminListener(
        address,
        checks=checks,
        metrics=metrics,
        api=_make_api(settings, address, processes, checks),
        tls=None if tls is None else _make_context(tls),
    )
    await admin.start()
    try:
        yield
    finally:
        await admin.stop()


def read_admin_tls(settings: Settings) -> TlsFiles | None:
    """The TLS files of the admin listener; None for plain HTTP."""
    tls = settings.admin.tls
    return None if tls is None else TlsFiles(cert=tls.cert, key=tls.key, client_ca=tls.client_ca)


def check_admin_tokens(settings: Settings) -> None:
    """Checks the file with the API's tokens.

    Raises:
        ConfigError: it cannot be used.
    """
    if settings.admin.token_file is not None:
        read_token_file(settings.admin.token_file, at_least=MIN_TOKEN)


def _make_context(files: TlsFiles) -> ssl.SSLContext:
    from extauthz.serving.https import make_context

    return make_context(files)


def _make_api(
    settings: Settings,
    address: ListenAddress,
    processes: Processes,
    checks: Callable[[], Awaitable[Sequence[ReadyCheck]]],
) -> Api | None:
    from extauthz.app.admin.inspection import list_inspection_endpoints
    from extauthz.app.admin.recent import list_recent_endpoints
    from extauthz.app.admin.status import list_status_endpoints
    from extauthz.serving.admin.api import AdminApi, ClosedApi

    if settings.admin.api is False:
        return None
    if not settings.is_admin_api_open:
        return ClosedApi()
    version = metadata.version("extauthz")
    profile = settings.responses.profile.value
    endpoints = (
        *list_status_endpoints(processes, checks, version=version, profile=profile),
        *list_recent_endpoints(processes),
        *list_inspection_endpoints(processes),
    )
    return AdminApi(endpoints, _make_access(settings, address), version=version)


def _make_access(settings: Settings, address: ListenAddress) -> Access:
    from extauthz.model.routing.authority import read_host
    from extauthz.serving.admin.access import Access, AccessRules
    from extauthz.serving.admin.tokens import TokenFile

    admin = settings.admin
    tokens = None
    if admin.token_file is not None:
        read = partial(read_token_file, admin.token_file, at_least=MIN_TOKEN)
        tokens = TokenFile(admin.token_file, read).find_current
    named = [f"[{host}]" if ":" in host else host for host in (address.host, *admin.allowed_hosts)]
    return Access(
        AccessRules(
            is_local=is_local(address),
            is_socket=bool(address.path),
            hosts=frozenset(host for host in map(read_host, named) if host),
            tokens=tokens,
            has_client_ca=admin.tls is not None and admin.tls.client_ca is not None,
            client_sans=frozenset(admin.client_sans),
        )
    )
