"""Writes what a proxy that asked over HTTP does with the request: pass it on, or answer its client.

Allowed is 200, with the fields that the proxy copies into the request. Every field that only this
service may set is there, also without a value: a proxy that copies fields by name then overwrites
what a client has written. Envoy takes fields out when it is told their names, and gets no empty ones.

Denied is the client's own answer. What a proxy makes of a status is not the same everywhere:

- Envoy takes 5xx for "could not be decided", which `failure_mode_allow` lets pass. A denial with
  such a status (a blocked API) is therefore 403.
- nginx passes on 401 and 403 alone, and makes 500 of all others. Denials with another status are
  403, and `STATUS_HEADER` has the status, from which nginx can answer.

Not decided is 503: Envoy's `failure_mode_allow` and `status_on_error` apply; all others refuse.

Sources: envoyproxy/envoy, source/extensions/filters/common/ext_authz/ext_authz_http_impl.cc
(``x-envoy-auth-headers-to-remove``; statuses);
https://nginx.org/en/docs/http/ngx_http_auth_request_module.html
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from extauthz.answers.denial import HttpAnswer
from extauthz.answers.sendable import AnswerError, check_name, check_removed_name, check_value
from extauthz.answers.upstream import UpstreamChanges
from extauthz.serving.http_messages import Reply

STATUS_HEADER: Final = "x-extauthz-status"
"""The status that the client should get, where the proxy cannot be told it by the status itself."""
REMOVE_HEADER: Final = "x-envoy-auth-headers-to-remove"
_FORBIDDEN: Final = 403
_UNAVAILABLE: Final = 503
_SERVER_ERRORS: Final = 500
_PASSED_BY_NGINX: Final = frozenset({401, 403})


class Asker(Enum):
    """The kind of proxy that asks."""

    ENVOY = "envoy"
    FORWARD_AUTH = "forward-auth"
    AUTH_REQUEST = "auth-request"


def write_allowed(changes: UpstreamChanges, own_headers: Iterable[str], asker: Asker) -> Reply:
    """The answer that lets a request pass.

    Args:
        changes: of the request. A change of its path cannot be told over HTTP, and is left out.
        own_headers: fields that only this service may set.
        asker: the proxy.

    Raises:
        AnswerError: a field cannot be sent.
    """
    fields = [field for field in changes.set_headers if not field[0].startswith(":")]
    for name, value in (*fields, *changes.response_headers):
        check_name(name)
        check_value(name, value)
    removed = [check_removed_name(name) for name in changes.remove_headers]
    if asker is Asker.ENVOY:
        if removed:
            fields.append((REMOVE_HEADER, ",".join(removed)))
    else:
        there = {name for name, _ in fields}
        fields += [(name, "") for name in own_headers if name not in there]
    return Reply(200, (*fields, *changes.response_headers))


def write_denied(answer: HttpAnswer, asker: Asker) -> Reply:
    """The answer that refuses a request, which the proxy hands on to its client."""
    status, fields = answer.status, answer.headers
    is_told_apart = (
        status not in _PASSED_BY_NGINX
        if asker is Asker.AUTH_REQUEST
        else asker is Asker.ENVOY and status >= _SERVER_ERRORS
    )
    if is_told_apart:
        status, fields = _FORBIDDEN, (*fields, (STATUS_HEADER, str(status)))
    return Reply(status, tuple(filter(_can_be_sent, fields)), answer.body)


def write_undecided(answer: HttpAnswer) -> Reply:
    """The answer when no decision was possible: 503, which no proxy takes for a decision."""
    return Reply(_UNAVAILABLE, tuple(filter(_can_be_sent, answer.headers)), answer.body)


def _can_be_sent(field: tuple[str, str]) -> bool:
    """A denial is always sent: what cannot be written is left out."""
    try:
        check_name(field[0])
        check_value(*field)
    except AnswerError:
        return False
    return True
