"""Gives the answers of WSO2's Mixer adapter 1.0, for users of its handler (`wso2-adapter`).

It had three denials, each with a code and a text, which the proxy sent as the body. Clients may
depend on these, so they are kept. Denials that it never made (limits, unknown resources, blocked
APIs) are answered as everywhere else. Two of its codes were wrong and are not kept: a token without
the scope is refused with 403, and so is everything about a subscription. Source: wso2/istio-apim
1.0, adapter/wso2/wso2.go.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.decision import Reason
from extauthz.serving.methods import RpcCode

_MISSING: Final = (int(RpcCode.UNAUTHENTICATED), "Missing Credentials...")
_UNAUTHORIZED: Final = (int(RpcCode.UNAUTHENTICATED), "Unauthorized!")
_FORBIDDEN: Final = (int(RpcCode.PERMISSION_DENIED), "Resource forbidden")

_OLD_ANSWERS: Final = {
    Reason.MISSING_CREDENTIALS: _MISSING,
    Reason.INVALID_CREDENTIALS: _UNAUTHORIZED,
    Reason.AMBIGUOUS_CREDENTIALS: _UNAUTHORIZED,
    Reason.TOKEN_EXPIRED: _UNAUTHORIZED,
    Reason.TOKEN_INACTIVE: _UNAUTHORIZED,
    Reason.TOKEN_REVOKED: _UNAUTHORIZED,
    Reason.WRONG_KEY_TYPE: _UNAUTHORIZED,
    Reason.AUDIENCE_NOT_ALLOWED: _UNAUTHORIZED,
    Reason.CREDENTIAL_NOT_PERMITTED: _UNAUTHORIZED,
    Reason.SUBSCRIPTION_NOT_FOUND: _FORBIDDEN,
    Reason.SUBSCRIPTION_BLOCKED: _FORBIDDEN,
    Reason.SUBSCRIPTION_INACTIVE: _FORBIDDEN,
    Reason.INSUFFICIENT_SCOPE: _FORBIDDEN,
}


def find_old_answer(reason: Reason) -> tuple[int, str] | None:
    """The code (google.rpc.Code) and message of that adapter; None when it had no such denial."""
    return _OLD_ANSWERS.get(reason)
