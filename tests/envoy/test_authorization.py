"""Envoy's question in, Envoy's answer out, with a real decision in between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOption
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    AttributeContextHttpRequest,
    AttributeContextPeer,
    AttributeContextRequest,
    CheckResponse,
    DeniedHttpResponse,
)
from hypothesis import given
from hypothesis import strategies as st

from extauthz.answers.denial import DenialStyle, Profile
from extauthz.answers.upstream import IdentityFact, UpstreamStyle
from extauthz.counters.memory import MemoryCounterStore
from extauthz.envoy.authorization import AnswerStyle, AuthorizationService
from extauthz.errors import CounterStoreError, KeySourceError
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey
from extauthz.model.decision import Deny, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.limits import Charge, Taking
from extauthz.policy.decision_record import DecisionRecord
from extauthz.ports import NO_DEADLINE, Deadline
from extauthz.serving.methods import Call, RpcCode, RpcFailure
from tests.builders import (
    API_KEY,
    FakeClock,
    a_catalog,
    a_limit,
    a_resource,
    a_tier,
    an_api,
    sha256,
)
from tests.deciding import Deciding, Remembering
from tests.envoy.wire import a_check, a_check_of, an_address
from tests.keys import a_jwt, an_issuer

# The field is deprecated, but all that Envoy up to 1.36 reads.
pytestmark = pytest.mark.filterwarnings("ignore:HeaderValueOption.append is deprecated")

PATH = "/httpbin/1.0.0/ip"
GOLD = a_tier("Gold", a_limit(2))
CATALOG = a_catalog(
    an_api(a_resource("/ip"), a_resource("/admin", scopes=("admin",))),
    issuers=(an_issuer(),),
    subscription_fields={"tier": GOLD},
)


def a_service(
    deciding: Deciding | None = None, *, record: DecisionRecord | None = None, **style: Any
) -> AuthorizationService:
    deciding = deciding or Deciding(CATALOG)
    return AuthorizationService(
        decide=deciding.pipeline.decide,
        style=AnswerStyle(**style),
        clock=deciding.clock,
        record=record,
    )


async def ask(service: AuthorizationService, check: bytes, **call: Any) -> CheckResponse:
    """The answer, as another codec reads it."""
    return CheckResponse.parse(await service.check(check, Call(**call)))


def with_key(key: str = API_KEY, path: str = PATH, **headers: str) -> bytes:
    return a_check(path=path, headers={"x-api-key": key, **headers})


def with_token(path: str = PATH, **claims: Any) -> bytes:
    return a_check(path=path, headers={"authorization": f"Bearer {a_jwt(**claims)}"})


def fields(options: Sequence[HeaderValueOption]) -> dict[str, str]:
    read: dict[str, str] = {}
    for option in options:
        assert option.header is not None and option.header.key not in read
        read[option.header.key] = option.header.value
    return read


def denied(response: CheckResponse) -> DeniedHttpResponse:
    assert response.ok_response is None and response.error_response is None
    assert response.denied_response is not None
    assert response.status is not None and response.status.code != 0
    return response.denied_response


def metadata(response: CheckResponse) -> dict[str, Any]:
    assert response.dynamic_metadata is not None
    read: dict[str, Any] = response.dynamic_metadata.to_dict()
    return read


async def test_an_allowed_request_goes_upstream_with_its_identity() -> None:
    response = await ask(a_service(), with_key(x_extauthz_user="admin", **{"x-other": "1"}))
    assert response.status is not None and response.status.code == 0
    assert response.denied_response is None
    ok = response.ok_response
    assert ok is not None
    assert fields(ok.headers) == {
        "x-extauthz-application": "mobile",
        "x-extauthz-user": "alice",
        "x-extauthz-tier": "Gold",
    }
    assert set(ok.headers_to_remove) == {"x-api-key", "x_extauthz_user"}
    assert "ratelimit" in {name.lower() for name in fields(ok.response_headers_to_add)}


@pytest.mark.parametrize(
    ("query", "path"),
    [
        (f"apikey={API_KEY}", PATH),
        (f"api%6Bey={API_KEY}", PATH),
        (f"a=%20+&%61pikey={API_KEY}&b", f"{PATH}?a=%20+&b"),
    ],
)
async def test_a_key_in_the_query_is_taken_out_of_the_path(query: str, path: str) -> None:
    ok = (await ask(a_service(), a_check(path=f"{PATH}?{query}"))).ok_response
    assert ok is not None
    assert fields(ok.headers)[":path"] == path


@pytest.mark.parametrize("query", ["apikey=other", "api%6Bey=other", "a=1;apikey=other"])
async def test_a_second_key_is_seen_however_its_name_is_spelled(query: str) -> None:
    found = denied(await ask(a_service(), with_key(path=f"{PATH}?{query}")))
    assert json.loads(found.body)["reason"] == "ambiguous_credentials"


async def test_a_key_with_a_comma_is_one_where_envoy_sends_fields_apart() -> None:
    key = ApiKey(digest=sha256("a,b"), application=Application(name="mobile", owner="alice"))
    service = a_service(Deciding(a_catalog(api_keys=[key])))
    apart = await ask(service, a_check(path=PATH, raw=[("x-api-key", b"a,b")]))
    assert apart.ok_response is not None
    joined = denied(await ask(service, a_check(path=PATH, headers={"x-api-key": "a,b"})))
    assert json.loads(joined.body)["reason"] == "ambiguous_credentials"
    twice = [("x-api-key", b"a"), ("x-api-key", b"b")]
    repeated = denied(await ask(service, a_check(path=PATH, raw=twice)))
    assert json.loads(repeated.body)["reason"] == "ambiguous_credentials"


@pytest.mark.parametrize("query", ["&" * 58_000, "%41" * 19_000, "apikey&" * 17])
@pytest.mark.parametrize("template", ["/ip", "/public"])
async def test_refuses_a_query_of_more_than_is_read(query: str, template: str) -> None:
    public = a_resource("/public", security=(SecurityScheme.NONE,))
    service = a_service(Deciding(a_catalog(an_api(a_resource("/ip"), public))))
    check = with_key(path=f"/httpbin/1.0.0{template}?{query}")
    found = denied(await ask(service, check))
    assert json.loads(found.body)["reason"] == "malformed_request"


async def test_an_allowed_request_is_described_in_the_metadata() -> None:
    found = metadata(await ask(a_service(), with_token()))
    assert found.pop("decision_id")
    assert found.pop("decision_us") > 0
    assert found == {
        "reason": "allowed",
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "resource": "/ip",
        "application": "mobile",
        "consumer_key": "abc123",
        "user": "alice",
        "tier": "Gold",
        "key_type": "PRODUCTION",
        "limits": ["Gold"],
        "remaining": 1,
    }


async def test_a_key_in_the_query_is_taken_out() -> None:
    response = await ask(a_service(), a_check(path=f"{PATH}?apikey={API_KEY}&a=1"))
    assert response.ok_response is not None
    (path,) = [
        option.header.value
        for option in response.ok_response.headers
        if option.header and option.header.key == ":path"
    ]
    assert path == f"{PATH}?a=1"


@pytest.mark.parametrize(
    ("check", "status", "code", "reason"),
    [
        (a_check(path=PATH), 401, 16, "missing_credentials"),
        (with_key("guess"), 401, 16, "invalid_credentials"),
        (with_token(path="/httpbin/1.0.0/admin"), 403, 7, "insufficient_scope"),
        (a_check(path="/other"), 404, 5, "api_not_found"),
        (a_check(path=PATH, method="PUT"), 405, 5, "method_not_allowed"),
        (with_key(path="/httpbin/1.0.0/%2e%2e/ip"), 400, 3, "malformed_request"),
        (with_key(path="*"), 400, 3, "malformed_request"),
    ],
)
async def test_a_denied_request_is_answered_in_the_upstreams_place(
    check: bytes, status: int, code: int, reason: str
) -> None:
    response = await ask(a_service(), check)
    answer = denied(response)
    assert answer.status is not None and int(answer.status.code) == status
    assert response.status is not None and response.status.code == code
    body = json.loads(answer.body)
    assert (body["reason"], body["status"]) == (reason, status)
    assert fields(answer.headers)["content-type"] == "application/problem+json"
    found = metadata(response)
    assert found["reason"] == reason and found["decision_id"] == body["decision_id"]


async def test_a_rate_limited_request_says_so_everywhere() -> None:
    service = a_service()
    for _ in range(2):
        assert (await ask(service, with_key())).ok_response is not None
    response = await ask(service, with_key())
    answer = denied(response)
    sent = fields(answer.headers)
    assert int(sent["retry-after"]) > 0
    found = metadata(response)
    assert (found["level"], found["remaining"], found["tier"]) == ("subscription", 0, "Gold")
    assert found["application"] == "mobile"


async def test_what_is_over_but_not_enforced_is_in_the_metadata() -> None:
    tier = a_tier("Soft", a_limit(0), stop_on_quota_reach=False)
    deciding = Deciding(a_catalog(subscription_fields={"tier": tier}))
    response = await ask(a_service(deciding), with_key())
    assert response.ok_response is not None
    assert metadata(response)["exceeded_unenforced"] == ["Soft"]


async def test_the_wso2_profile_reaches_the_client() -> None:
    style = DenialStyle(profile=Profile.WSO2)
    answer = denied(await ask(a_service(denial=style), a_check(path=PATH)))
    assert json.loads(answer.body)["code"] == "900902"


# What could not be decided


class AwayStore(MemoryCounterStore):
    """Does not answer."""

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        raise CounterStoreError("redis://:pass@127.0.0.1 timed out")


def away() -> Deciding:
    return Deciding(CATALOG, counters=AwayStore(FakeClock()))


async def test_what_could_not_be_decided_is_a_failed_call() -> None:
    with pytest.raises(RpcFailure) as failure:
        await a_service(away()).check(with_key(), Call())
    assert failure.value.code is RpcCode.UNAVAILABLE
    assert "redis" not in failure.value.message


async def test_what_could_not_be_decided_may_be_an_error_response() -> None:
    response = await ask(a_service(away(), error_response=True), with_key())
    assert response.ok_response is None and response.denied_response is None
    error = response.error_response
    assert error is not None and error.status is not None and int(error.status.code) == 503
    assert response.status is not None and response.status.code == 14
    assert json.loads(error.body)["reason"] == "unavailable"
    assert "redis" not in str(response)


async def test_a_passed_deadline_is_a_failed_call() -> None:
    with pytest.raises(RpcFailure):
        await a_service().check(with_key(), Call(deadline=Deadline(0.0)))


async def test_missing_keys_are_a_failed_call() -> None:
    deciding = Deciding(CATALOG)
    deciding.keys.error = KeySourceError("away")
    with pytest.raises(RpcFailure):
        await a_service(deciding).check(with_token(), Call())


# What must not be a failed call: `failure_mode_allow` would let it pass.


@pytest.mark.parametrize(
    "data", [b"\xff\xff", b"", b"\x0a\x05abc", a_check(method="GET", path=""), a_check(method="")]
)
@pytest.mark.parametrize("error_response", [True, False])
async def test_bytes_that_are_no_question_are_denied(data: bytes, *, error_response: bool) -> None:
    observer = Remembering()
    service = a_service(error_response=error_response, record=DecisionRecord([observer]))
    answer = denied(await ask(service, data))
    assert answer.status is not None and int(answer.status.code) == 400
    ((request, decision, _),) = observer.told
    assert isinstance(decision, Deny)
    said = json.loads(answer.body)
    assert (said["reason"], said["decision_id"]) == (decision.reason.value, decision.id)
    assert (said["reason"], request.door) == ("malformed_request", "envoy")


@pytest.mark.parametrize("name", ["a\r\nx-evil: 1", "a\0", "a\nb", " ", " a", "a\x7f", "x" * 9000])
@pytest.mark.parametrize("error_response", [True, False])
async def test_an_application_whose_name_breaks_a_header_is_denied(
    name: str, *, error_response: bool
) -> None:
    deciding = Deciding(a_catalog(application=Application(name=name)))
    answer = denied(await ask(a_service(deciding, error_response=error_response), with_key()))
    assert answer.status is not None and int(answer.status.code) == 503
    assert json.loads(answer.body)["reason"] == "unavailable"
    assert "evil" not in str(answer)


async def test_a_user_whose_name_breaks_a_header_is_denied_before_anything_is_charged() -> None:
    response = await ask(a_service(), with_token(sub="eve\r\nx-extauthz-user: admin"))
    assert denied(response).status is not None
    assert metadata(response)["reason"] == "invalid_credentials"


async def test_an_identity_that_no_header_can_hold_is_denied(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A denial and no failed call: an operator may let those pass."""
    service = a_service(upstream=UpstreamStyle(identity_headers={IdentityFact.SCOPES: "x-scopes"}))
    scopes = " ".join(mark * 1000 for mark in "abcdefghi")
    response = await ask(service, with_token(scope=scopes))
    assert denied(response).status is not None
    assert metadata(response)["reason"] == "unavailable"
    assert "x-scopes" in caplog.text and "aaaa" not in caplog.text


async def test_a_query_that_cannot_be_sent_on_is_denied() -> None:
    raw = [("x-api-key", API_KEY.encode())]
    check = a_check(path=f"{PATH}?é&apikey={API_KEY}", raw=raw)
    assert denied(await ask(a_service(), check)).status is not None


async def test_every_header_of_ours_is_checked() -> None:
    names = {fact: f"x-{number}" for number, fact in enumerate(IdentityFact)}
    service = a_service(upstream=UpstreamStyle(identity_headers=names))
    response = await ask(service, with_token(azp="abc123", scope="b a"))
    assert response.ok_response is not None
    sent = fields(response.ok_response.headers)
    assert sent["x-7"] == "a b" and sent["x-3"] == "PRODUCTION"


# The rest of the way


async def test_the_peers_certificate_and_address_are_seen() -> None:
    attributes = AttributeContext(
        source=AttributeContextPeer(address=an_address("192.0.2.9"), principal="spiffe://mesh/x"),
        request=AttributeContextRequest(
            http=AttributeContextHttpRequest(method="GET", path=PATH, host="api.example.com")
        ),
    )
    deciding = Deciding(CATALOG)
    await ask(a_service(deciding), a_check_of(attributes))
    ((request, _, _),) = deciding.observer.told
    assert request.source.principal == "spiffe://mesh/x"
    assert request.source.address == "192.0.2.9"


async def test_the_callers_deadline_is_handed_on() -> None:
    seen: list[Deadline] = []
    deciding = Deciding(CATALOG)

    async def decide(request: Any, *, deadline: Deadline, shadow: bool = False) -> Any:
        assert not shadow
        seen.append(deadline)
        return await deciding.decide(request, deadline=deadline)

    service = AuthorizationService(decide=decide, style=AnswerStyle(), clock=deciding.clock)
    deadline = Deadline(2.0**40)
    await service.check(with_key(), Call(deadline=deadline))
    assert seen == [deadline]


@pytest.mark.parametrize(
    "check",
    [with_key(), with_key("wrong"), with_key(path="/nowhere"), a_check(path="x" * 9000), b"\xff"],
    ids=["allow", "bad key", "no API", "bad path", "no message"],
)
async def test_a_shadow_lets_everything_pass_and_tells_observers(check: bytes) -> None:
    deciding, open_deciding = Deciding(CATALOG), Deciding(CATALOG)
    shadow = AuthorizationService(
        decide=deciding.pipeline.decide, style=AnswerStyle(), clock=deciding.clock, shadow=True
    )
    answer = await shadow.method().handle(check, Call())
    assert CheckResponse.parse(answer).to_dict() == {"status": {}, "okResponse": {}}
    assert not deciding.counted()
    await a_service(open_deciding).check(check, Call())
    told = [decision for _, decision, _ in deciding.observer.told]
    assert all(decision.shadow for decision in told)
    assert [type(decision) for decision in told] == [
        type(decision) for _, decision, _ in open_deciding.observer.told
    ]


def test_stands_in_the_method_table_as_envoy_calls_it() -> None:
    method = a_service().method()
    assert method.path == "/envoy.service.auth.v3.Authorization/Check"
    assert method.failure_code is RpcCode.UNAVAILABLE


PUBLIC = a_catalog(an_api(a_resource("/*", security=(SecurityScheme.NONE,)), a_resource("/ip")))


@given(
    path=st.text(max_size=30)
    | st.text(alphabet="/.%2feE?&=ip", max_size=20).map(lambda rest: f"/httpbin/1.0.0/{rest}"),
    headers=st.dictionaries(
        st.sampled_from(["x-api-key", "authorization", "cookie", "x-extauthz-user", "accept"])
        | st.text(max_size=5),
        st.text(max_size=20),
    ),
    method=st.sampled_from(["GET", "OPTIONS", "get", "\0"]),
)
async def test_no_question_of_a_client_makes_the_call_fail(
    path: str, headers: dict[str, str], method: str
) -> None:
    service = a_service(Deciding(PUBLIC))
    response = await ask(service, a_check(path=path, headers=headers, method=method))
    allowed, refused = response.ok_response, response.denied_response
    assert (allowed is None) is not (refused is None)
    if refused is not None:
        assert json.loads(refused.body)["reason"] in {reason.value for reason in Reason}
