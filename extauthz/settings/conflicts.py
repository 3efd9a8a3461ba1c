"""Finds settings that contradict each other, though each is good by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from extauthz.documents.document import Fault
from extauthz.serving.listen import is_local, may_collide, read_listen_address
from extauthz.settings.tree import Settings
from extauthz.telemetry.decision_log.masking import AddressMask


def find_conflicts(settings: Settings) -> Iterator[Fault]:
    """What is wrong between values that are good by themselves."""
    yield from _find_listener_conflicts(settings)
    yield from _find_worker_conflicts(settings)
    yield from _find_admin_conflicts(settings)
    yield from _find_mixer_conflicts(settings)
    yield from _find_emergency_conflicts(settings)
    yield from _find_log_conflicts(settings)
    responses, credentials = settings.responses, settings.credentials
    own = [
        (("responses", "identity_headers", fact.value), name)
        for fact, name in responses.identity_headers.items()
    ]
    if responses.backend_jwt is not None:
        own.append((("responses", "backend_jwt", "header"), responses.backend_jwt.header))
    credential_headers = {
        place.header
        for place in (*credentials.bearer, *credentials.api_key)
        if place.header is not None
    }
    taken: set[str] = set()
    for path, name in own:
        # CGI and WSGI read "_" and "-" alike.
        read_as = name.replace("_", "-")
        if read_as in taken:
            yield Fault(path=path, message=f"{name} stands here twice; give each its own header")
        taken.add(read_as)
        if name in credential_headers:
            message = f"a client's credential stands in {name}; name another header"
            yield Fault(path=path, message=message)


def _find_listener_conflicts(settings: Settings) -> Iterator[Fault]:
    listen, taken = settings.listen, list[tuple[str, str]]()
    for name, address in (
        ("grpc", listen.grpc),
        ("mixer", listen.mixer),
        ("http", listen.http),
        ("admin", listen.admin),
    ):
        if address is None:
            continue
        here = read_listen_address(address)
        for other, theirs in taken:
            if may_collide(here, read_listen_address(theirs)):
                message = f"listen.{other} is at {theirs} already; name another port or socket"
                yield Fault(path=("listen", name), message=message)
                break
        taken.append((name, address))


def _find_worker_conflicts(settings: Settings) -> Iterator[Fault]:
    if settings.server.workers == 1:
        return
    if settings.counters.store == "memory":
        message = (
            "memory counts in one process, and each worker would admit every limit by itself; "
            "write store: redis with a url, or server.workers: 1"
        )
        yield Fault(path=("counters", "store"), message=message)
    message = "workers cannot share a unix socket; listen on a TCP port, or write server.workers: 1"
    listen = settings.listen
    for door, address in (("grpc", listen.grpc), ("mixer", listen.mixer), ("http", listen.http)):
        if address is not None and address.startswith("unix:"):
            yield Fault(path=("listen", door), message=message)


def _find_admin_conflicts(settings: Settings) -> Iterator[Fault]:
    admin, address = settings.admin, settings.listen.admin
    if admin.client_sans and (admin.tls is None or admin.tls.client_ca is None):
        message = "asks for client certificates; set admin.tls.client_ca"
        yield Fault(path=("admin", "client_sans"), message=message)
    if not admin.api:
        return
    if address is None:
        message = "there is no admin listener; set listen.admin"
        yield Fault(path=("admin", "api"), message=message)
    elif not is_local(read_listen_address(address)) and not admin.says_who_may:
        message = (
            f"other machines can reach {address}, and nothing says who may use the API; set "
            "admin.token_file or admin.tls.client_ca, or listen on 127.0.0.1 or a unix socket"
        )
        yield Fault(path=("admin", "api"), message=message)


def _find_mixer_conflicts(settings: Settings) -> Iterator[Fault]:
    mixer, path = settings.mixer, ("mixer", "callers", "uri_sans")
    if mixer.callers.uri_sans and (mixer.tls is None or mixer.tls.client_ca is None):
        yield Fault(path=path, message="asks for client certificates; set mixer.tls.client_ca")


def _find_emergency_conflicts(settings: Settings) -> Iterator[Fault]:
    catalog = [Path(os.path.normpath(path)) for path in settings.catalog.files]
    for position, file in enumerate(settings.emergency.files):
        if any(Path(os.path.normpath(file)).is_relative_to(path) for path in catalog):
            message = (
                "lies in the catalog's folder and would be read as a part of it; move it out, so "
                "that a mistake in the one does not stop the other"
            )
            yield Fault(path=("emergency", "files", position), message=message)


def _find_log_conflicts(settings: Settings) -> Iterator[Fault]:
    decisions, path = settings.log.decisions, ("log", "decisions")
    if decisions is None:
        return
    if not decisions.has_sink:
        message = "names no place to write to; set file, stdout, redis or otlp, or remove it"
        yield Fault(path=path, message=message)
    if decisions.client_address is AddressMask.HASH and decisions.hash_key_file is None:
        message = "hash needs hash_key_file: without a key, every address could be tried"
        yield Fault(path=(*path, "client_address"), message=message)
    redis = decisions.redis
    if redis is None or redis.url is not None:
        return
    message = ""
    if redis.model_fields_set - {"key", "max_length"}:
        message = "says how a Redis of its own is reached, and names no url; write it"
    elif settings.counters.url is None:
        message = "names no url, and the counters are not in a Redis; write the url of one"
    if message:
        yield Fault(path=(*path, "redis"), message=message)
