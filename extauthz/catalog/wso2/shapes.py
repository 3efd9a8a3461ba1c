"""The rows of API Manager's internal data API, as far as they are used.

Rows are read leniently, because releases differ: a field may be null or missing, a number may be
text, and fields that nobody here reads are ignored. What has no sensible value left is refused row
by row (`extauthz.catalog.wso2.rows`), and never loses the other rows.

Source: wso2/product-apim, internal-api client, src/main/resources/api.yaml, at v4.0.0, v4.3.0 and
v4.6.0; wso2/carbon-apimgt, org.wso2.carbon.apimgt.internal.service.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SUPER_TENANT = "carbon.super"


def _read_text(value: object) -> object:
    return "" if value is None else str(value) if isinstance(value, int | float) else value


def _read_whole(value: object) -> object:
    """A number as JSON or as text, ``1.7645E12`` too; 0 for none."""
    if value is None or value == "":
        return 0
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("must be a whole number")
        return int(value)
    return value


def _read_flag(value: object) -> object:
    return False if value is None else value


def _read_list(value: object) -> object:
    return () if value is None else value


Text = Annotated[str, BeforeValidator(_read_text)]
Whole = Annotated[int, BeforeValidator(_read_whole)]
Flag = Annotated[bool, BeforeValidator(_read_flag)]


class Row(BaseModel):
    """Base of all rows."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )


class UrlMapping(Row):
    """A resource of an API: one method on one template."""

    auth_scheme: Text = Field(default="", alias="authScheme")
    policy: Text = Field(default="", alias="throttlingPolicy")
    method: Text = Field(default="", alias="httpMethod")
    template: Text = Field(default="", alias="urlPattern")
    scopes: Annotated[tuple[Text, ...], BeforeValidator(_read_list)] = ()


class ApiRow(Row):
    """An API."""

    uuid: Text = ""
    id: Whole = Field(default=0, alias="apiId")
    provider: Text = ""
    name: Text = Field(min_length=1)
    version: Text = Field(min_length=1)
    context: Text = Field(min_length=1)
    policy: Text = ""
    type: Text = Field(default="", alias="apiType")
    status: Text = Field(default="", validation_alias=AliasChoices("status", "lcState"))
    is_default: Flag = Field(default=False, alias="isDefaultVersion")
    organization: Text = ""
    url_mappings: Annotated[tuple[UrlMapping, ...], BeforeValidator(_read_list)] = Field(
        default=(), alias="urlMappings"
    )


class ApplicationRow(Row):
    """An application."""

    uuid: Text = ""
    id: Whole = 0
    name: Text = Field(min_length=1)
    owner: Text = Field(default="", validation_alias=AliasChoices("subName", "subscriber"))
    policy: Text = ""
    organization: Text = ""


class SubscriptionRow(Row):
    """An application's subscription to an API. Releases before 4.1 have no UUIDs."""

    id: Whole = Field(default=0, alias="subscriptionId")
    uuid: Text = Field(default="", alias="subscriptionUUID")
    policy: Text = Field(default="", alias="policyId")
    api_id: Whole = Field(default=0, alias="apiId")
    api_uuid: Text = Field(default="", alias="apiUUID")
    application_id: Whole = Field(default=0, alias="appId")
    application_uuid: Text = Field(default="", alias="applicationUUID")
    state: Text = Field(default="", alias="subscriptionState")


class KeyMappingRow(Row):
    """A consumer key of an application, at one key manager."""

    application_id: Whole = Field(default=0, alias="applicationId")
    application_uuid: Text = Field(default="", alias="applicationUUID")
    consumer_key: Text = Field(min_length=1, alias="consumerKey")
    key_type: Text = Field(default="", alias="keyType")
    key_manager: Text = Field(default="", alias="keyManager")


class RequestLimit(Row):
    """So many requests in a time."""

    unit: Text = Field(default="", alias="timeUnit")
    length: Whole = Field(default=1, alias="unitTime")
    requests: Whole = Field(alias="requestCount")


class BandwidthLimit(Row):
    """So much data in a time."""

    unit: Text = Field(default="", alias="timeUnit")
    length: Whole = Field(default=1, alias="unitTime")
    amount: Whole = Field(alias="dataAmount")
    data_unit: Text = Field(default="", alias="dataUnit")


class EventLimit(Row):
    """So many events in a time."""

    unit: Text = Field(default="", alias="timeUnit")
    length: Whole = Field(default=1, alias="unitTime")
    events: Whole = Field(alias="eventCount")


class AiLimit(Row):
    """So many requests and tokens of a language model in a time (4.4 and later)."""

    unit: Text = Field(default="", alias="timeUnit")
    length: Whole = Field(default=1, alias="unitTime")
    requests: Whole = Field(default=0, alias="requestCount")
    total_tokens: Whole = Field(default=0, alias="totalTokenCount")
    prompt_tokens: Whole = Field(default=0, alias="promptTokenCount")
    completion_tokens: Whole = Field(default=0, alias="completionTokenCount")


class QuotaLimit(Row):
    """One limit: the attribute that is there says of which kind."""

    quota_type: Text = Field(default="", alias="quotaType")
    requests: RequestLimit | None = Field(default=None, alias="requestCount")
    bandwidth: BandwidthLimit | None = Field(
        default=None, validation_alias=AliasChoices("bandwidth", "bandwidthVolume")
    )
    events: EventLimit | None = Field(default=None, alias="eventCount")
    ai: AiLimit | None = Field(default=None, alias="aiApiQuota")


class ConditionRow(Row):
    """One condition of a group."""

    type: Text = Field(default="", alias="conditionType")
    name: Text = ""
    value: Text = ""
    is_inverted: Flag = Field(default=False, alias="isInverted")


class ConditionGroupRow(Row):
    """A limit for the requests that fit all of its conditions."""

    id: Whole = Field(default=0, alias="conditionGroupId")
    conditions: Annotated[tuple[ConditionRow, ...], BeforeValidator(_read_list)] = Field(
        default=(), alias="condition"
    )
    limit: QuotaLimit | None = Field(default=None, alias="defaultLimit")


class PolicyRow(Row):
    """A throttling policy of any kind."""

    tenant: Text = Field(
        default="", validation_alias=AliasChoices("tenantDomain", "tenanDomain", "organization")
    )
    name: Text = Field(min_length=1)
    quota_type: Text = Field(default="", alias="quotaType")
    level: Text = Field(default="", alias="applicableLevel")
    limit: QuotaLimit | None = Field(default=None, alias="defaultLimit")
    burst: Whole = Field(default=0, alias="rateLimitCount")
    burst_unit: Text = Field(default="", alias="rateLimitTimeUnit")
    stops: bool = Field(default=True, alias="stopOnQuotaReach")
    groups: Annotated[tuple[ConditionGroupRow, ...], BeforeValidator(_read_list)] = Field(
        default=(), alias="conditionGroups"
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null_stop(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("stopOnQuotaReach", True) is None:
            return {key: value for key, value in tree.items() if key != "stopOnQuotaReach"}
        return tree


class GlobalPolicyRow(Row):
    """A custom rule: a key, and a query of Siddhi's that counts by it."""

    tenant: Text = Field(default="", alias="tenantDomain")
    name: Text = Field(min_length=1)
    query: Text = Field(default="", alias="siddhiQuery")
    key: Text = Field(default="", alias="keyTemplate")


class KeyManagerRow(Row):
    """A key manager. Its configuration may hold passwords, and is never shown."""

    name: Text = Field(min_length=1)
    type: Text = ""
    enabled: bool = True
    tenant: Text = Field(default="", validation_alias=AliasChoices("tenantDomain", "organization"))
    configuration: dict[str, Any] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("configuration", "additionalProperties"),
        repr=False,
    )


class IpBlock(Row):
    """Addresses that are blocked, or with `invert` all others."""

    type: Text = ""
    fixed: Text = Field(default="", alias="fixedIp")
    first: Text = Field(default="", alias="startingIp")
    last: Text = Field(default="", alias="endingIp")
    invert: Flag = False
    tenant: Text = Field(default="", alias="tenantDomain")


_Texts = Annotated[tuple[Text, ...], BeforeValidator(_read_list)]


class BlockRow(Row):
    """Everything that is blocked."""

    api: _Texts = ()
    application: _Texts = ()
    user: _Texts = ()
    ip: Annotated[tuple[IpBlock, ...], BeforeValidator(_read_list)] = ()
    custom: _Texts = ()


class RevokedJwt(Row):
    """A token that was taken back, by its ``jti``."""

    token_id: Text = Field(min_length=1, alias="jwt_signature")
    expires_ms: Whole = Field(default=0, alias="expiry_time")


class RevokedConsumerKey(Row):
    """A consumer key whose tokens up to a moment were taken back (4.3 and later)."""

    consumer_key: Text = Field(min_length=1)
    revoked_ms: Whole = Field(default=0, alias="revocation_time")


class RevokedSubject(Row):
    """A user or client whose tokens up to a moment were taken back (4.3 and later)."""

    id: Text = Field(min_length=1, alias="entity_id")
    type: Text = Field(default="", alias="entity_type")
    revoked_ms: Whole = Field(default=0, alias="revocation_time")


class ApiKeyRow(Row):
    """A hashed API key (4.7)."""

    digest: Text = Field(min_length=1, alias="apiKeyHash")
    name: Text = Field(default="", alias="keyName")
    key_type: Text = Field(default="", alias="keyType")
    status: Text = ""
    application_id: Whole = Field(default=0, alias="appId")
    properties: dict[str, Any] | None = Field(default=None, alias="additionalProperties")
