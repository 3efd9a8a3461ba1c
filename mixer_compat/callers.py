"""Who may ask: a Mixer that presents a token, or a certificate with one of some names.

Whoever can ask the adapter can try credentials at leisure, and charge other people's quotas.
What a Mixer presents is configured in the handler (`connection.authentication`): a token in
``authorization``, as it is (PLAIN) or behind "Bearer" (BEARER, and OAuth), or in a header of its
own; or, with `mutual`, a client certificate. A call without it fails as UNAUTHENTICATED, which
says nothing about the request that it asked of.

Source: istio/istio mixer/pkg/protobuf/yaml/dynamic/auth.go.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from extauthz.model.identity import Secret
from extauthz.serving.methods import Call, RpcCode, RpcFailure

AUTHORIZATION: Final = "authorization"
_REFUSAL: Final = "this Mixer is not known here; see connection.authentication of its handler"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRules:
    """What a caller must present; all of it that is set.

    Attributes:
        tokens: any of them; several, so that a Mixer can be given a new one.
        header: lower-case; where the token stands.
        uris: URI SANs of client certificates; any of them.
    """

    tokens: tuple[Secret, ...] = ()
    header: str = AUTHORIZATION
    uris: frozenset[str] = frozenset()


ANYBODY: Final = CallerRules()
"""For a socket or a network that nobody else reaches."""


def check_caller(call: Call, rules: CallerRules) -> None:
    """Lets a known caller pass.

    Raises:
        RpcFailure: UNAUTHENTICATED, for everybody else.
    """
    if rules.tokens and not _has_token(call, rules):
        raise RpcFailure(RpcCode.UNAUTHENTICATED, _REFUSAL)
    if rules.uris and rules.uris.isdisjoint(call.list_peer_uris()):
        raise RpcFailure(RpcCode.UNAUTHENTICATED, _REFUSAL)


def _has_token(call: Call, rules: CallerRules) -> bool:
    sent = [value for name, value in call.metadata if name == rules.header]
    if len(sent) != 1 or not isinstance(sent[0], str):
        return False
    text = sent[0].strip()
    if rules.header == AUTHORIZATION:
        scheme, _, token = text.partition(" ")
        text = token.strip() if scheme.lower() == "bearer" else text
    presented = Secret(text).digest()
    # All of them, and by their hashes: the time that it takes tells nothing.
    return sum(hmac.compare_digest(presented, token.digest()) for token in rules.tokens) > 0
