"""Reads an introspection endpoint's answer (RFC 7662 2.2 and 2.3, RFC 6749 5.2).

An answer that the token alone can cause is a denial. One that our configuration or a failing
provider causes means that no decision is possible; its message says what to correct. A caller must
not be able to turn the first into the second by its token. `docs/reference/introspection.md` has
the same as a table, which the tests check.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from extauthz.errors import IntrospectionError
from extauthz.model.issuers import IntrospectionEndpoint
from extauthz.policy.authentication.strict_json import read_json_object

_OF_THE_REQUEST: Final = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    )
)
"""Statuses that refuse the request's content, of which only the token varies."""
_OF_THE_CLIENT: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
_FOR_NOW: Final = frozenset(
    (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
)

_TOKEN_ERRORS: Final = frozenset(("invalid_token", "unsupported_token_type"))
"""Said of the token, whatever the status: Authlib says the second with 401."""
_CLIENT_ERRORS: Final = frozenset(
    ("access_denied", "insufficient_scope", "invalid_client", "unauthorized_client")
)
_PASSING_ERRORS: Final = frozenset(("server_error", "slow_down", "temporarily_unavailable"))


class TokenRefused(Exception):
    """The endpoint refuses the token. The text says how, and quotes no secret."""


def read_answer(status: int, body: bytes, endpoint: IntrospectionEndpoint) -> Mapping[str, Any]:
    """The members of an answer; its ``active`` is True or False.

    Raises:
        TokenRefused: the endpoint refuses the token.
        IntrospectionError: the answer says nothing about the token. The text quotes nothing of the
            body except OAuth's error codes.
    """
    if status != HTTPStatus.OK:
        _judge_status(status, _read_error(body), endpoint)
    try:
        answer = read_json_object(body)
    except ValueError as error:
        failure = f"the answer is {error}; check introspection.url"
    else:
        if isinstance(answer.get("active"), bool):
            return answer
        failure = 'the answer does not say "active": true or false; check introspection.url'
    raise IntrospectionError(failure)


def _judge_status(status: int, error: str, endpoint: IntrospectionEndpoint) -> None:
    """Raises the error for a status other than 200."""
    said = f"{status} {error}".rstrip()
    if error in _PASSING_ERRORS or status in _FOR_NOW or status >= 500:
        raise IntrospectionError(f"it answered {said}")
    if status >= 400 and error in _TOKEN_ERRORS:
        raise TokenRefused(said)
    if status in _OF_THE_CLIENT or error in _CLIENT_ERRORS:
        raise IntrospectionError(
            f"it refused our client id and secret ({said}): check client_id "
            f"({endpoint.client_id!r}), client_secret_file and credentials_in_body below "
            "introspection, and whether this client may introspect",
            transient=False,
        )
    if status in _OF_THE_REQUEST:
        raise TokenRefused(said)
    hint = ", and is not followed" if 300 <= status < 400 else ""
    raise IntrospectionError(
        f"it answered {said} and not 200{hint}: check introspection.url", transient=False
    )


def _read_error(body: bytes) -> str:
    """The error code of RFC 6749 5.2, when it is one that is known here."""
    try:
        error = read_json_object(body).get("error")
    except ValueError:
        return ""
    known = _TOKEN_ERRORS | _CLIENT_ERRORS | _PASSING_ERRORS | {"invalid_request"}
    return error if isinstance(error, str) and error in known else ""
