"""The process that follows an API Manager: ``python -m extauthz.catalog.wso2.process``.

It asks for the rows, writes them as a catalog document, and tells the process that started it, line
by line on its standard output (`extauthz.catalog.wso2.messages`). So neither the large answers nor
their checking delay a decision. It ends when its standard input is closed, because its parent has
then ended.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from extauthz.catalog.wso2.announcing import Announcer
from extauthz.catalog.wso2.data_api import DataApi, NotAllowed
from extauthz.catalog.wso2.messages import (
    DOCUMENT,
    Connected,
    Heard,
    Message,
    Parameters,
    Pulled,
    PullFailed,
    Revoked,
    Told,
    write_message,
)
from extauthz.catalog.wso2.rows import Rows
from extauthz.catalog.wso2.writing.document import Written, write_document
from extauthz.catalog.wso2.writing.issuers import Resident
from extauthz.catalog.wso2.writing.valid import make_valid
from extauthz.errors import CatalogError, ExtauthzError

if TYPE_CHECKING:
    from extauthz.catalog.wso2.events.listener import Listener

MODULE: Final = "extauthz.catalog.wso2.process"
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
REFUSED_RETRY_S: Final = 60.0
"""The pause after 401 and 403: administrators are locked out after some failures."""
JITTER: Final = 0.1
PULL: Final = "pull"
"""The word on standard input for a full pull now."""


class Follower:
    """Follows one API Manager.

    Args:
        say: takes each message.
        wait: waits for so many seconds, or until a pull is asked for; False to end.
    """

    def __init__(
        self,
        parameters: Parameters,
        say: Callable[[Message], None],
        wait: Callable[[float], bool],
        *,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        self._parameters = parameters
        self._say = say
        self._wait = wait
        self._random_share = random_share
        self._folder = Path(parameters.folder)
        self._rows: Rows | None = None
        self._was_empty = False

    def run(self) -> None:
        """Pulls until the end."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                self._pull()
            except CatalogError as exc:
                refused = isinstance(exc, NotAllowed)
                self._say(PullFailed(message=str(exc), is_refused=refused))
                pause_s = REFUSED_RETRY_S if refused else retry_s
                retry_s = min(2 * retry_s, MAX_RETRY_S)
            else:
                retry_s, pause_s = FIRST_RETRY_S, self._parameters.refresh_s
            if not self._wait(pause_s * (1 + JITTER * self._random_share())):
                return

    def _pull(self) -> None:
        began_s = time.monotonic()
        with open_api(self._parameters) as api:
            rows = api.pull(self._parameters.tenants, self._tell)
        is_doubtful = rows.is_empty and self._rows is not None and not self._rows.is_empty
        if is_doubtful and not self._was_empty:
            self._was_empty = True
            # After a restart, an API Manager has answered with empty lists.
            raise CatalogError("all lists are empty, which is believed when it is seen twice")
        self._was_empty = False
        written, is_changed = self._write(rows)
        self._rows = rows
        self._say(
            Pulled(
                rows=count_rows(rows),
                is_changed=is_changed,
                left_out=list(written.left_out),
                left_out_count=written.left_out_count,
                took_s=time.monotonic() - began_s,
            )
        )

    def _write(self, rows: Rows) -> tuple[Written, bool]:
        """Writes the document; gives it, and whether it is another one than before."""
        written = write_document(rows, find_resident(self._parameters))
        for name, text in written.files.items():
            write_file(self._folder / name, text.encode())
        file = self._folder / DOCUMENT
        written = make_valid(written, file)
        return written, write_file(file, written.write())

    def _tell(self, text: str) -> None:
        if self._rows is None:
            self._say(Told(level=logging.INFO, message=text))


def open_api(parameters: Parameters) -> DataApi:
    """A client of the API Manager.

    Raises:
        CatalogError: a file that the parameters name cannot be read.
    """
    credentials = None
    if parameters.username:
        credentials = (parameters.username, _read_secret(parameters.password_file))
    token = _read_secret(parameters.token_file) if parameters.token_file and not credentials else ""
    try:
        ca = Path(parameters.ca_file).read_text() if parameters.ca_file else ""
        return DataApi(
            parameters.url,
            credentials=credentials,
            token=token,
            ca=ca,
            timeout_s=parameters.timeout_s,
        )
    except (OSError, ValueError) as exc:
        raise CatalogError(f"{parameters.ca_file}: cannot be used: {type(exc).__name__}") from exc


def _read_secret(file: str) -> str:
    return _read_text(file).strip()


def _read_text(file: str) -> str:
    try:
        return Path(file).read_text()
    except (OSError, ValueError) as exc:
        raise CatalogError(f"{file}: cannot be read: {type(exc).__name__}") from exc


def open_listeners(
    parameters: Parameters, say: Callable[[Message], None], pull: Callable[[], None]
) -> Sequence[Listener]:
    """The listeners for the brokers that the parameters name.

    Raises:
        CatalogError: a file that they name cannot be read.
    """
    if not parameters.brokers:
        return ()
    from extauthz.catalog.wso2.events.listener import Broker, Listener
    from extauthz.catalog.wso2.events.reading import Changed, Event, TokenRevoked

    password = _read_secret(parameters.broker_password_file)
    ca = _read_text(parameters.broker_ca_file) if parameters.broker_ca_file else ""

    def hear(event: Event) -> None:
        match event:
            case TokenRevoked():
                say(Revoked(token_id=event.token_id, expires_ms=event.expires_ms))
                say(Heard(kind="revocation"))
            case Changed():
                say(Heard(kind=event.kind))
                pull()
            case _:
                say(Heard(kind=f"ignored_{event.kind}"))

    def listen(url: str) -> Listener:
        broker = Broker(url=url, username=parameters.broker_username, password=password, ca=ca)

        def note(is_up: bool, why: str) -> None:  # noqa: FBT001  (as the listener calls it)
            say(Connected(broker=broker.name, is_up=is_up, why=why))
            if is_up:
                # What was told before is lost.
                pull()

        return Listener(broker, hear, note)

    return [listen(url) for url in parameters.brokers]


def find_resident(parameters: Parameters) -> Resident | None:
    """How API Manager's own key manager is asked about tokens; None without its credentials."""
    if not parameters.username:
        return None
    return Resident(
        introspection_url=f"{parameters.url.rstrip('/')}/oauth2/introspect",
        username=parameters.username,
        password_file=parameters.password_file,
        ca_file=parameters.ca_file,
    )


def count_rows(rows: Rows) -> dict[str, int]:
    """Numbers of rows by table."""
    return {
        "apis": len(rows.apis),
        "applications": len(rows.applications),
        "subscriptions": len(rows.subscriptions),
        "consumer_keys": len(rows.key_mappings),
        "policies": len(rows.policies) + len(rows.global_policies),
        "key_managers": len(rows.key_managers),
        "api_keys": len(rows.api_keys),
        "revoked": len(rows.revoked.tokens)
        + len(rows.revoked.consumer_keys)
        + len(rows.revoked.subjects),
    }


def write_file(file: Path, content: bytes) -> bool:
    """Writes a file that only this user may read, whole or not at all. False if it was the same.

    Raises:
        CatalogError: it cannot be written.
    """
    try:
        if file.exists() and file.read_bytes() == content:
            return False
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as exc:
        raise CatalogError(f"{file}: cannot be written: {exc.strerror}") from exc
    return True


def main() -> None:
    """Follows until standard input is closed."""
    os.nice(5)
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what is printed by mistake must not get between the messages
    logging.getLogger().setLevel(logging.CRITICAL)  # what is wrong is told in messages
    parameters = Parameters.read(sys.stdin.buffer.readline())
    words: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(words,), daemon=True).start()

    lock = threading.Lock()

    def say(message: Message) -> None:
        with lock, suppress(BrokenPipeError):
            stream.write(write_message(message))

    def wait(seconds: float) -> bool:
        try:
            word = words.get(timeout=seconds)
            # One reading answers all that came meanwhile.
            while not words.empty():
                word = words.get()
        except queue.Empty:
            return True
        return word == PULL

    if parameters.announce:
        announcer = Announcer(
            parameters, open_api, say, lambda seconds: not threading.Event().wait(seconds)
        )
        threading.Thread(target=announcer.run, daemon=True).start()
    for listener in open_listeners(parameters, say, lambda: words.put(PULL)):
        listener.start()
    try:
        Follower(parameters, say, wait).run()
    except ExtauthzError as exc:
        say(PullFailed(message=str(exc)))
        sys.exit(1)


def _listen(words: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin.buffer:
        words.put(line.decode().strip())
    # The parent has ended, or wants this one to.
    os._exit(0)


if __name__ == "__main__":
    main()
