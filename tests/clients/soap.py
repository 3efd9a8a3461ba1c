"""Answers of API Manager 2.6's key validation (carbon-apimgt 6.5, tests of its keymgt.client)."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from tests.clients.loopback import Answer

_FIELDS: Final = {
    "apiName": "Pizza",
    "apiPublisher": "admin",
    "applicationId": "1",
    "applicationName": "DefaultApplication",
    "applicationTier": "Unlimited",
    "authorized": "true",
    "consumerKey": "abc123",
    "contentAware": "false",
    "endUserName": "admin@carbon.super",
    "issuedTime": "",
    "spikeArrestLimit": "0",
    "stopOnQuotaReach": "true",
    "subscriber": "admin",
    "subscriberTenantDomain": "carbon.super",
    "throttlingDataList": "api_level_throttling_key",
    "tier": "Gold",
    "type": "PRODUCTION",
    "userType": "APPLICATION",
    "validationStatus": "0",
    "validityPeriod": "2059000",
}


def validated(
    scopes: tuple[str, ...] = ("am_application_scope", "default"), **fields: str
) -> Answer:
    """An answer that lets the call through; `fields` replace members of it."""
    members = {**_FIELDS, **fields}
    body = "".join(
        f"<ax2129:{name}>{text if text.startswith('&') else escape(text)}</ax2129:{name}>"
        for name, text in [*members.items(), *(("scopes", scope) for scope in scopes)]
    )
    nil = "".join(
        f'<ax2129:{name} xsi:nil="true"/>'
        for name in ("apiTier", "authorizedDomains", "endUserToken", "spikeArrestUnit")
    )
    return Answer(
        body=(
            '<soapenv:Envelope xmlns:soapenv="http://www.w3.org/2003/05/soap-envelope">'
            '<soapenv:Body><ns:validateKeyResponse xmlns:ns="http://org.apache.axis2/xsd">'
            '<ns:return xmlns:ax2129="http://dto.impl.apimgt.carbon.wso2.org/xsd" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            f'xsi:type="ax2129:APIKeyValidationInfoDTO">{nil}{body}</ns:return>'
            "</ns:validateKeyResponse></soapenv:Body></soapenv:Envelope>"
        ).encode(),
        headers={"content-type": "application/soap+xml;charset=UTF-8"},
    )


def refused(code: str) -> Answer:
    """An answer that refuses the call, with its ``validationStatus``."""
    return validated(authorized="false", validationStatus=code, consumerKey="")
