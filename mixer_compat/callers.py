"""Authenticates the Mixers that call the adapter, by a token.

A caller of the adapter could try credentials without a limit, and use up the quotas of others. What
a Mixer presents is configured in the handler (`connection.authentication`): a token in
``authorization``, as it is (PLAIN) or after "Bearer" (BEARER, and OAuth), or in a header of its
own. A call without it fails with UNAUTHENTICATED, which says nothing about the request in it. A
client certificate (`mutual`) is checked by the host before any method: see `TlsFiles`.

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
    """What a caller must present.

    Attributes:
        tokens: the tokens that are accepted; several, so that a token can be replaced. None admits
            every caller.
        header: lower-case name of the token's header.
    """

    tokens: tuple[Secret, ...] = ()
    header: str = AUTHORIZATION


ANYBODY: Final = CallerRules()
"""No authentication, for a socket or a network that only Mixer can reach."""


def check_caller(call: Call, rules: CallerRules) -> None:
    """Checks the caller's token.

    Raises:
        RpcFailure: UNAUTHENTICATED, when it has none of the tokens.
    """
    if rules.tokens and not _has_token(call, rules):
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
    # All tokens are compared, by their hashes, so that the time reveals nothing.
    return sum(hmac.compare_digest(presented, token.digest()) for token in rules.tokens) > 0
