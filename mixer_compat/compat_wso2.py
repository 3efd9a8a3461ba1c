"""What WSO2's Mixer adapter 1.0 answered, for those who keep its handler (`wso2-adapter`).

It knew three denials, each a code and a text; the proxy's own words were the whole body. Callers
may look for those, so they stay as they were. Denials that it never made (limits, unknown
resources, blocked APIs) are answered in full, as everywhere else. Two of its codes were wrong
and are not kept: a token without the scope is refused with 403, as is everything about a
subscription. Source: wso2/istio-apim 1.0, adapter/wso2/wso2.go.
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
    Reason.CREDENTIAL_NOT_PERMITTED: _UNAUTHORIZED,
    Reason.SUBSCRIPTION_NOT_FOUND: _FORBIDDEN,
    Reason.SUBSCRIPTION_BLOCKED: _FORBIDDEN,
    Reason.SUBSCRIPTION_INACTIVE: _FORBIDDEN,
    Reason.INSUFFICIENT_SCOPE: _FORBIDDEN,
}


def find_old_answer(reason: Reason) -> tuple[int, str] | None:
    """The code (google.rpc.Code) and message of old; None for what is answered in full."""
    return _OLD_ANSWERS.get(reason)
