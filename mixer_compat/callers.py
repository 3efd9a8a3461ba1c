"""Who may ask: a Mixer that presents a token.

Whoever can ask the adapter can try credentials at leisure, and charge other people's quotas.
What a Mixer presents is configured in the handler (`connection.authentication`): a token in
``authorization``, as it is (PLAIN) or behind "Bearer" (BEARER, and OAuth), or in a header of its
own. A call without it fails as UNAUTHENTICATED, which says nothing about the request that it
asked of. What is presented with `mutual`, a client certificate, is the host's to check, before
any method: see `TlsFiles`.

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
        tokens: any of them; several, so that a Mixer can be given a new one. None: anybody passes.
        header: lower-case; where the token stands.
    """

    tokens: tuple[Secret, ...] = ()
    header: str = AUTHORIZATION


ANYBODY: Final = CallerRules()
"""For a socket or a network that nobody else reaches."""


def check_caller(call: Call, rules: CallerRules) -> None:
    """Lets a known caller pass.

    Raises:
        RpcFailure: UNAUTHENTICATED, for everybody else.
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
    # All of them, and by their hashes: the time that it takes tells nothing.
    return sum(hmac.compare_digest(presented, token.digest()) for token in rules.tokens) > 0
