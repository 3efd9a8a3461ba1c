"""Maps each reason to its status and code in HTTP, in gRPC and for WSO2's clients.

Sources: RFC 9110 for statuses; google.rpc.Code for `rpc_code`; WSO2 API Manager's gateway
(APISecurityConstants, ThrottleHandler) and Choreo Connect 1.2 for the codes and texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from extauthz.model.decision import Denial, Reason
from extauthz.model.limits import LimitLevel


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of the table.

    Attributes:
        http_status, rpc_code: in the standard profile.
        title: one line that is the same for every occurrence (RFC 9457).
        wso2_code, wso2_status, wso2_message, wso2_description: in the profile ``wso2``.
    """

    http_status: int
    rpc_code: int
    title: str
    wso2_code: int
    wso2_status: int
    wso2_message: str
    wso2_description: str


_INVALID: Final = (
    "Invalid Credentials",
    "Invalid Credentials. Make sure you have provided the correct security credentials",
)
_FORBIDDEN: Final = ("Resource forbidden ", "Resource forbidden ")
_RESOURCE: Final = (
    "No matching resource found in the API for the given request",
    "No matching resource found in the API for the given request. Check the API documentation "
    "and add a proper REST resource path to the invocation URL",
)
_THROTTLED: Final = ("Message throttled out", "You have exceeded your quota")

MEANINGS: Final[dict[Reason, Meaning]] = {
    Reason.MISSING_CREDENTIALS: Meaning(
        401, 16, "No credential was sent", 900902, 401,
        "Missing Credentials",
        "Missing Credentials. Make sure your API invocation call has a header: "
        "'Authorization: Bearer ACCESS_TOKEN'",
    ),
    Reason.INVALID_CREDENTIALS: Meaning(
        401, 16, "The credential is not valid", 900901, 401, *_INVALID
    ),
    Reason.AMBIGUOUS_CREDENTIALS: Meaning(
        400, 3, "More than one credential was sent", 900901, 401, *_INVALID
    ),
    Reason.TOKEN_EXPIRED: Meaning(
        401, 16, "The token has expired", 900903, 401,
        "Access Token Expired",
        "Access Token Expired. Renew the access token and try again",
    ),
    Reason.TOKEN_INACTIVE: Meaning(
        401, 16, "The token is not active", 900904, 401,
        "Access Token Inactive",
        "Access Token Inactive. Generate a new access token and try again",
    ),
    Reason.TOKEN_REVOKED: Meaning(
        401, 16, "The token was revoked", 900901, 401, *_INVALID
    ),
    Reason.WRONG_KEY_TYPE: Meaning(
        401, 16, "The key is for another environment", 900905, 401,
        "Incorrect Access Token Type is provided",
        "Incorrect Access Token Type is provided",
    ),
    Reason.AUDIENCE_NOT_ALLOWED: Meaning(
        401, 16, "The token is not for this API", 900914, 403,
        "Invalid audience",
        "The access token does not allow you to access the requested resource",
    ),
    Reason.CREDENTIAL_NOT_PERMITTED: Meaning(
        403, 7, "The credential may not be used from here", 900908, 403, *_FORBIDDEN
    ),
    Reason.API_NOT_FOUND: Meaning(
        404, 5, "No such API", 404, 404,
        "Not Found",
        "The requested resource is not available.",
    ),
    Reason.RESOURCE_NOT_FOUND: Meaning(
        404, 5, "No such resource", 900906, 404, *_RESOURCE
    ),
    Reason.METHOD_NOT_ALLOWED: Meaning(
        405, 5, "The resource does not take this method", 900906, 405, *_RESOURCE
    ),
    Reason.API_BLOCKED: Meaning(
        503, 14, "The API is blocked", 700700, 503,
        "API blocked",
        "This API has been blocked temporarily. Please try again later or contact the system "
        "administrators.",
    ),
    Reason.SUBSCRIPTION_NOT_FOUND: Meaning(
        403, 7, "The application is not subscribed", 900908, 403, *_FORBIDDEN
    ),
    Reason.SUBSCRIPTION_BLOCKED: Meaning(
        403, 7, "The subscription is blocked", 900907, 401,
        "The requested API is temporarily blocked",
        "The requested API is temporarily blocked",
    ),
    Reason.SUBSCRIPTION_INACTIVE: Meaning(
        403, 7, "The subscription is not active", 900909, 403,
        "The subscription to the API is inactive",
        "The subscription to the API is inactive",
    ),
    Reason.INSUFFICIENT_SCOPE: Meaning(
        403, 7, "The token lacks a scope", 900910, 403,
        "The access token does not allow you to access the requested resource",
        "User is NOT authorized to access the Resource. Scope validation failed.",
    ),
    Reason.RATE_LIMITED: Meaning(
        429, 8, "Too many requests", 900800, 429, *_THROTTLED
    ),
    Reason.BLOCKED: Meaning(
        403, 7, "The caller is blocked", 900805, 403,
        "Message blocked",
        "You have been blocked from accessing the resource",
    ),
    Reason.MALFORMED_REQUEST: Meaning(
        400, 3, "The request is malformed", 900901, 400,
        "Bad Request",
        "The request is malformed",
    ),
    Reason.UNAVAILABLE: Meaning(
        503, 14, "The request could not be decided", 900900, 503,
        "Unclassified Authentication Failure",
        "Unclassified Authentication Failure",
    ),
}  # fmt: skip

WSO2_THROTTLE_CODES: Final[dict[LimitLevel, int]] = {
    LimitLevel.API: 900800,
    LimitLevel.RESOURCE: 900802,
    LimitLevel.APPLICATION: 900803,
    LimitLevel.SUBSCRIPTION: 900804,
    LimitLevel.BURST: 900807,
    LimitLevel.CUSTOM: 900806,
    LimitLevel.CLIENT: 900806,
}


def wso2_code(denial: Denial) -> int:
    """WSO2's code of a denial."""
    if denial.level is not None:
        return WSO2_THROTTLE_CODES[denial.level]
    return MEANINGS[denial.reason].wso2_code
