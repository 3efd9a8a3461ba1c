"""Connects to Redis, alone or through Sentinels, with TLS and authentication."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from extauthz.counters.redis.replies import BoundedParser
from extauthz.counters.redis.settings import Deployment, RedisSettings, Server, write_server
from extauthz.model.identity import Secret

_SPEAKING: Final[dict[str, Any]] = {
    "protocol": 2,
    "parser_class": BoundedParser,
    "driver_info": None,
}


class _FileCredentials(CredentialProvider):
    """A user whose password is read from its file whenever a connection is made."""

    def __init__(self, username: str, file: Path) -> None:
        self._username = username
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise RedisError(f"the password file {self._file} cannot be read") from exc
        return (self._username, password) if self._username else (password,)


def _credentials(username: str, password: Secret | None, file: Path | None) -> dict[str, Any]:
    if file is not None:
        return {"credential_provider": _FileCredentials(username, file)}
    if password is not None:
        return {"username": username or None, "password": password.reveal()}
    return {}


class Connector:
    """Makes connections by the settings, and finds the primary through Sentinels."""

    def __init__(self, settings: RedisSettings) -> None:
        address = settings.address
        self._address = address
        self._timeouts: dict[str, Any] = {
            # A queue bounds each call as a whole, so its connections need no timeout of their own.
            "socket_timeout": None,
            "socket_connect_timeout": settings.connect_timeout_s,
        }
        self._tls: dict[str, Any] = {}
        if address.is_encrypted:
            files = {
                "ssl_ca_certs": settings.ca_file,
                "ssl_certfile": settings.cert_file,
                "ssl_keyfile": settings.key_file,
            }
            self._tls = {name: str(file) for name, file in files.items() if file is not None}
        self._credentials = _credentials(
            settings.username or address.username, address.password, settings.password_file
        )
        self._sentinels: list[Server] = []
        if address.deployment is Deployment.SENTINEL:
            self._sentinels = list(address.servers)
        self._credentials_of_sentinels = _credentials(
            settings.sentinel_username, None, settings.sentinel_password_file
        )
        self._sentinel_timeout_s = settings.connect_timeout_s / 2

    async def connect(self) -> AbstractConnection:
        """Connects to the only Redis, or to the primary that Sentinels name; authenticates.

        Raises:
            RedisError, OSError: it could not be made.
        """
        address = self._address
        if address.path:
            options = {"db": address.db, **self._timeouts, **self._credentials, **_SPEAKING}
            return await _greeted(UnixDomainSocketConnection(path=address.path, **options))
        if not self._sentinels:
            return await self.connect_to(address.servers[0])
        return await self.connect_to(await self._find_primary())

    async def connect_to(self, server: Server) -> AbstractConnection:
        """Connects to this server and authenticates. Raises as `connect` does."""
        return await self._connect_to(server, {"db": self._address.db, **self._credentials})

    async def _connect_to(self, server: Server, options: dict[str, Any]) -> AbstractConnection:
        host, port = server
        options = {"host": host, "port": port, **self._timeouts, **options, **_SPEAKING}
        if self._address.is_encrypted:
            return await _greeted(SSLConnection(**options, **self._tls))
        return await _greeted(Connection(**options))

    async def _find_primary(self) -> Server:
        """The primary by the first Sentinel that answers, which is asked first from now on."""
        failures = []
        for number, sentinel in enumerate(self._sentinels):
            try:
                async with asyncio.timeout(self._sentinel_timeout_s):
                    primary = await self._ask_sentinel(sentinel)
            except (RedisError, OSError, ValueError) as exc:
                failures.append(f"{write_server(sentinel)}: {str(exc) or 'no answer in time'}")
                continue
            self._sentinels.insert(0, self._sentinels.pop(number))
            return primary
        raise RedisError(
            f"no Sentinel names a primary of {self._address.service} ({'; '.join(failures)})"
        )

    async def _ask_sentinel(self, sentinel: Server) -> Server:
        connection = await self._connect_to(sentinel, self._credentials_of_sentinels)
        try:
            ask = ("SENTINEL", "MASTER", self._address.service)
            await connection.send_command(*ask, check_health=False)
            return _read_primary(await connection.read_response())
        finally:
            await connection.disconnect(nowait=True)


def _read_primary(reply: object) -> Server:
    """Reads SENTINEL MASTER: names of fields, each followed by its value."""
    if not isinstance(reply, list) or not all(isinstance(word, bytes) for word in reply):
        raise ValueError("the answer names no primary")
    fields = dict(zip(reply[::2], reply[1::2], strict=False))
    flags = fields.get(b"flags", b"").split(b",")
    if b"master" not in flags or b"s_down" in flags or b"o_down" in flags:
        raise ValueError("the primary is down")
    host, digits = fields.get(b"ip", b"").decode(), fields.get(b"port", b"").decode()
    if not host or not digits.isdigit() or not 0 < int(digits) < 65536:
        raise ValueError("the answer names no primary")
    return host, int(digits)


async def _greeted(connection: AbstractConnection) -> AbstractConnection:
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection
