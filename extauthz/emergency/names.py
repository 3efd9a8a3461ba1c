"""Checks the names of blocks and revocations against a catalog: a misspelled one blocks nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

from extauthz.catalog.documents.faults import find_hint
from extauthz.catalog.documents.networks import parse_network
from extauthz.documents.messages import show_name
from extauthz.emergency.entries import BlockDocument, Document
from extauthz.model.catalog import Catalog


class CatalogNames:
    """The names in a catalog that a block or revocation can meet.

    Args:
        is_discreet: sentences suggest neither consumer keys nor users of the catalog.
    """

    def __init__(self, catalog: Catalog, *, is_discreet: bool = False) -> None:
        self._catalog = catalog
        self._is_discreet = is_discreet

    def list_misfits(self, document: Document) -> Iterator[str]:
        """A sentence for each name that is not in the catalog. Users are not known there."""
        catalog = self._catalog
        if isinstance(document, BlockDocument):
            if document.application is not None:
                yield from self._say_application(document.application)
            if document.api is not None:
                yield from self._say_api(document.api, document.version)
        elif document.issuer is not None and document.issuer not in catalog.issuers:
            yield _say("issuer", document.issuer, catalog.issuers)
        if document.consumer_key is not None and not self._is_open:
            key = document.consumer_key
            if key not in self._consumer_keys and self._is_discreet:
                yield f"consumer key {show_name(key)} fits nothing in the catalog"
            elif key not in self._consumer_keys:
                yield _say("consumer key", key, self._consumer_keys)
        user = document.user
        if user is not None and user not in self._users:
            near = self._folded_users.get(user.casefold())
            if near is not None and self._is_discreet:
                yield f"no application's owner is user {show_name(user)}; look at upper and lower case"
            elif near is not None:
                yield f"no application's owner is user {show_name(user)}; did you mean {near!a}?"

    def say_fits(self, document: Document) -> str:
        """What in the catalog is affected, with numbers; empty when that is not known."""
        catalog = self._catalog
        fits: list[str] = []
        application = document.application if isinstance(document, BlockDocument) else None
        if application is not None and application in catalog.applications:
            keys = sum(
                it.application is not None and it.application.name == application
                for it in catalog.api_keys.values()
            )
            clients = sum(
                it.application.name == application for it in catalog.consumer_keys.values()
            )
            fits.append(
                f"application {show_name(application)} with {_count(keys, 'API key')} "
                f"and {_count(clients, 'consumer key')}"
            )
        if isinstance(document, BlockDocument) and document.api is not None:
            versions = [
                version
                for name, version in catalog.apis
                if name == document.api and document.version in (None, version)
            ]
            fits.append(f"API {show_name(document.api)}, {_count(len(versions), 'version')}")
        if isinstance(document, BlockDocument) and document.ip is not None:
            count = parse_network(document.ip).num_addresses
            fits.append("1 address" if count == 1 else f"{count} addresses")
        return "; ".join(fits)

    @cached_property
    def _is_open(self) -> bool:
        """Whether tokens may name applications that are not in the catalog."""
        return any(it.subscriptions_from_token for it in self._catalog.issuers.values())

    @cached_property
    def _consumer_keys(self) -> frozenset[str]:
        return frozenset(key for _, key in self._catalog.consumer_keys)

    @cached_property
    def _users(self) -> frozenset[str]:
        owners = (it.owner for it in self._catalog.applications.values())
        return frozenset(owners) | self._catalog.certificates.keys()

    @cached_property
    def _folded_users(self) -> dict[str, str]:
        return {user.casefold(): user for user in self._users}

    @cached_property
    def _folded_applications(self) -> dict[str, str]:
        return {name.casefold(): name for name in self._catalog.applications}

    def _say_application(self, name: str) -> Iterator[str]:
        known = self._catalog.applications
        if name in known or (self._is_open and name.casefold() not in self._folded_applications):
            return
        near = self._folded_applications.get(name.casefold())
        yield _say("application", name, known if near is None else [near])

    def _say_api(self, name: str, version: str | None) -> Iterator[str]:
        apis = self._catalog.apis
        if name not in self._catalog.default_versions:
            yield _say("API", name, self._catalog.default_versions)
        elif version is not None and (name, version) not in apis:
            versions = [its for of, its in apis if of == name]
            yield _say(f"version of API {show_name(name)}", version, versions)


def _say(what: str, name: str, known: Collection[str]) -> str:
    return f"{what} {show_name(name)} fits nothing in the catalog{find_hint(name, known)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
