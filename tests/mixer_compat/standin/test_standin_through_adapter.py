"""From a configuration to what a client gets: generated objects, the stand-in for Mixer and its
proxies, and the real service behind a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from extauthz.app.service import METRICS, open_service, read_listeners
from extauthz.cli import main
from extauthz.cli.key import write_digest
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.settings.reading import read_settings
from mixer_compat.manifests.descriptors import write_template_descriptor
from mixer_compat.manifests.objects import Manifest
from mixer_compat.proto import wso2_params_pb2
from tests.builders import API_KEY
from tests.keys import ISSUER, a_jwks, a_jwt
from tests.mixer_compat.standin.config import read_snapshot
from tests.mixer_compat.standin.mixer import Mixer, RpcError
from tests.mixer_compat.standin.proxy import ClientAnswer, Proxy

OTHER_KEY = "another-key"
SETTINGS = """\
listen: {grpc: "127.0.0.1:0", mixer: "127.0.0.1:0"}
catalog: {files: [catalog.yaml]}
"""
CATALOG = f"""\
apis:
  - name: HttpbinAPI
    version: 1.0.0
    context: /httpbin/1.0.0
    security: [jwt, api_key]
    resources:
      - {{methods: [GET], path: /ip, scopes: [scope_ip]}}
      - {{methods: [GET], path: /admin, scopes: [scope_admin]}}
      - {{methods: [GET], path: /headers}}
      - {{methods: [GET], path: /few, tier: Few}}
applications:
  - name: mobile
    api_keys: [{{{write_digest(API_KEY)}}}]
    consumer_keys: [{{id: abc123, issuer: {ISSUER}}}]
  - name: stranger
    api_keys: [{{{write_digest(OTHER_KEY)}}}]
subscriptions:
  - {{application: mobile, api: HttpbinAPI, version: 1.0.0}}
tiers:
  Few: {{limits: [{{requests: 3, per: year, algorithm: calendar, timezone: UTC}}]}}
issuers:
  - {{issuer: {ISSUER}, audiences: [httpbin], jwks_file: jwks.json}}
"""
SERVICE = ["--service", "httpbin.default=HttpbinAPI"]


def request(path: str = "/httpbin/1.0.0/headers", **headers: str) -> dict[str, Any]:
    """The attributes that a sidecar sends; underscores in names of headers are dashes."""
    return {
        "context.reporter.kind": "inbound",
        "context.protocol": "http",
        "destination.namespace": "default",
        "destination.service.name": "httpbin",
        "destination.service.namespace": "default",
        "destination.service.host": "httpbin.default.svc.cluster.local",
        "request.headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "request.method": "GET",
        "request.host": "api.example.com",
        "request.path": path,
        "request.url_path": path.partition("?")[0],
        "source.ip": bytes([10, 0, 0, 1]),
    }


def response(code: int = 200, path: str = "/httpbin/1.0.0/headers") -> dict[str, Any]:
    """The attributes of a report."""
    return {
        **request(path, x_api_key=API_KEY),
        "request.time": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
        "response.time": datetime(2020, 1, 2, 3, 4, 6, tzinfo=UTC),
        "response.code": code,
        "response.size": 42,
        "response.duration": timedelta(seconds=1),
        "request.size": 7,
    }


def token(**claims: Any) -> str:
    now = int(time.time())
    return a_jwt(**{"iat": now - 10, "exp": now + 300, **claims})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "extauthz.yaml").write_text(SETTINGS)
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    (tmp_path / "jwks.json").write_text(a_jwks())
    return tmp_path


@dataclass(frozen=True, slots=True)
class Running:
    """A mesh with the service in it."""

    mixer: Mixer
    metrics: Any

    def proxy(self, *, fail_open: bool = False, **quotas: int) -> Proxy:
        named = {name.replace("_", "-"): charge for name, charge in quotas.items()}
        # Never the same moment twice, as a proxy's clock has nanoseconds.
        ticks = itertools.count()
        clock = lambda: 1000 + next(ticks) / 1e6  # noqa: E731
        return Proxy(self.mixer, clock=clock, quotas=named, fail_open=fail_open)

    async def get(self, attributes: Mapping[str, Any]) -> ClientAnswer:
        """What a client gets through a sidecar that has kept nothing."""
        return await self.proxy().request(attributes)


async def make_objects(folder: Path, *arguments: str) -> list[Manifest]:
    """What the command prints."""

    def run() -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(
                [
                    *("mixer-manifests", "--address", "extauthz.test:44225"),
                    *("--config", str(folder / "extauthz.yaml"), *arguments),
                ]
            )
        assert code == 0
        return printed.getvalue()

    return list(yaml.safe_load_all(await asyncio.to_thread(run)))


@asynccontextmanager
async def mesh(folder: Path, objects: list[Manifest]) -> AsyncIterator[Running]:
    """The service, and a Mixer with these objects that asks it."""
    snapshot = read_snapshot(objects)
    assert snapshot.errors == []
    settings = read_settings(folder / "extauthz.yaml", {})
    async with open_service(settings) as service:
        host = GrpcioHost(service.doors, read_listeners(settings))
        await host.start()
        service.words["serve"]()
        listening = dict(
            zip([each.door for each in read_listeners(settings)], host.addresses, strict=True)
        )
        addresses = {
            handler.address: str(listening["mixer"]) for handler in snapshot.handlers.values()
        }
        mixer = Mixer(snapshot, addresses=addresses)
        try:
            yield Running(mixer, service.questions[METRICS])
        finally:
            await mixer.close()
            await host.stop(0)


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[Running]:
    async with mesh(folder, await make_objects(folder)) as found:
        yield found


# What a client gets


async def test_a_key_lets_a_request_pass(running: Running) -> None:
    assert (await running.get(request(x_api_key=API_KEY))).status == 200
    assert (await running.get(request(f"/httpbin/1.0.0/headers?apikey={API_KEY}"))).status == 200


async def test_a_token_lets_a_request_pass(running: Running) -> None:
    allowed = request("/httpbin/1.0.0/ip", authorization=f"Bearer {token()}")
    assert (await running.get(allowed)).status == 200


@pytest.mark.parametrize(
    ("attributes", "status", "reason"),
    [
        (request(), 401, "missing_credentials"),
        (request(x_api_key="wrong"), 401, "invalid_credentials"),
        (request(x_api_key=API_KEY, apikey=OTHER_KEY), 400, "ambiguous_credentials"),
        (request(x_api_key=OTHER_KEY), 403, "subscription_not_found"),
        (request("/elsewhere", x_api_key=API_KEY), 404, "api_not_found"),
        (request("/httpbin/1.0.0/elsewhere", x_api_key=API_KEY), 404, "resource_not_found"),
    ],
)
async def test_a_denial_is_what_envoys_door_would_say(
    attributes: dict[str, Any], status: int, reason: str, running: Running
) -> None:
    answer = await running.get(attributes)
    assert answer.status == status, answer
    headers = {name: value for name, value, _ in answer.headers}
    assert headers["content-type"] == "application/problem+json"
    body = json.loads(answer.body)
    assert body["status"] == status and reason in json.dumps(body)
    assert ("www-authenticate" in headers) == (status == 401)


async def test_a_token_without_the_scope_is_refused(running: Running) -> None:
    denied = request("/httpbin/1.0.0/admin", authorization=f"Bearer {token()}")
    answer = await running.get(denied)
    assert answer.status == 403 and "insufficient_scope" in answer.body


@pytest.mark.parametrize("missing", sorted(request()))
async def test_whatever_attribute_is_missing_nothing_fails(missing: str, running: Running) -> None:
    """A check that fails is left to the mesh, which may let it pass."""
    attributes = {name: value for name, value in request().items() if name != missing}
    answer = await running.get(attributes)
    assert 400 <= answer.status < 500 and "reason" in answer.body, answer


async def test_other_protocols_are_not_asked_about(running: Running) -> None:
    tcp = {"context.reporter.kind": "inbound", "context.protocol": "tcp"}
    assert (await running.get(tcp)).status == 200


# What a proxy keeps


async def test_an_allow_without_limits_is_kept_for_a_while(running: Running) -> None:
    proxy = running.proxy()
    found = [await proxy.request(request(x_api_key=API_KEY)) for _ in range(3)]
    assert [each.from_cache for each in found] == [False, True, True]
    other = await proxy.request(request(x_api_key="wrong"))
    assert other.status == 401 and not other.from_cache


async def test_a_denial_is_not_kept(running: Running) -> None:
    proxy = running.proxy()
    found = [await proxy.request(request()) for _ in range(2)]
    assert [(each.status, each.from_cache) for each in found] == [(401, False), (401, False)]


async def test_a_limit_counts_every_request(running: Running) -> None:
    proxy = running.proxy()
    limited = request("/httpbin/1.0.0/few", x_api_key=API_KEY)
    found = [await proxy.request(limited) for _ in range(5)]
    assert [each.status for each in found] == [200, 200, 200, 429, 429]
    assert not any(each.from_cache for each in found)
    headers = {name.lower(): value for name, value, _ in found[-1].headers}
    assert int(headers["retry-after"]) > 0


# Quotas


async def test_quotas_keep_the_limit_though_checks_are_kept(folder: Path) -> None:
    objects = await make_objects(folder, *SERVICE, "--quota")
    async with mesh(folder, objects) as running:
        proxy = running.proxy(extauthz_quota_httpbinapi_1_0_0=1)
        limited = request("/httpbin/1.0.0/few", x_api_key=API_KEY)
        found = [await proxy.request(limited) for _ in range(8)]
        assert [each.from_cache for each in found[:2]] == [False, True]
        # The proxy asks for ten ahead and gets the two that are left; what it spends before it
        # knows is never more than one.
        statuses = [each.status for each in found]
        assert statuses[0] == 200 and statuses.count(200) <= 4 and set(statuses[4:]) == {429}
        assert proxy.prefetches == [10]
        # Another proxy gets nothing more.
        other = await running.proxy(extauthz_quota_httpbinapi_1_0_0=1).request(limited)
        assert other.status == 429
        assert other.body.startswith("RESOURCE_EXHAUSTED:Quota is exhausted for: extauthz-quota")


async def test_a_quota_without_limits_is_granted(folder: Path) -> None:
    objects = await make_objects(folder, *SERVICE, "--quota")
    async with mesh(folder, objects) as running:
        proxy = running.proxy(extauthz_quota_httpbinapi_1_0_0=1)
        allowed = request(x_api_key=API_KEY)
        assert [(await proxy.request(allowed)).status for _ in range(30)] == [200] * 30


# APIs that are named, and services that are not checked


async def test_a_service_needs_no_base_path(folder: Path) -> None:
    async with mesh(folder, await make_objects(folder, *SERVICE)) as running:
        assert (await running.get(request("/headers", x_api_key=API_KEY))).status == 200
        assert (await running.get(request("/headers"))).status == 401


async def test_only_the_named_service_is_checked(folder: Path) -> None:
    async with mesh(folder, await make_objects(folder, *SERVICE)) as running:
        other = {**request("/headers"), "destination.service.name": "other"}
        assert (await running.get(other)).status == 200


async def test_in_shadow_mode_everything_passes_and_nothing_is_kept(folder: Path) -> None:
    async with mesh(folder, await make_objects(folder, "--shadow")) as running:
        proxy = running.proxy()
        for attributes in (request(), request("/elsewhere"), request(x_api_key="wrong")):
            found = [await proxy.request(attributes) for _ in range(2)]
            assert [(each.status, each.from_cache) for each in found] == [(200, False)] * 2


# Reports, and trouble


async def test_reports_are_read(running: Running) -> None:
    await running.mixer.report([response(), response(404, "/httpbin/1.0.0/few")])
    metrics = ""
    async with asyncio.timeout(10):
        while "reports_records_total 2" not in metrics.replace(".0", ""):
            await asyncio.sleep(0)  # a turn for who reads them
            metrics = (await running.metrics(None)).decode()


@pytest.mark.parametrize(("fail_open", "status"), [(False, 500), (True, 200)])
async def test_without_the_service_the_mesh_decides(
    fail_open: bool,  # noqa: FBT001  (a row of the table)
    status: int,
    folder: Path,
) -> None:
    async with mesh(folder, await make_objects(folder)) as running:
        mixer = running.mixer
    gone = Mixer(mixer.snapshot, addresses={"extauthz.test:44225": "127.0.0.1:1"})
    proxy = Proxy(gone, clock=lambda: 0.0, fail_open=fail_open)
    assert (await proxy.request(request(x_api_key=API_KEY))).status == status
    with pytest.raises(RpcError):
        await gone.report([response()])
    await gone.close()


# In the place of WSO2's adapter


def wso2_objects() -> list[Manifest]:
    """The objects that WSO2's adapter 1.0 is installed with, and a rule that the API Manager
    publishes, as far as Mixer reads them; only the address leads elsewhere."""
    params = FileDescriptorProto.FromString(wso2_params_pb2.DESCRIPTOR.serialized_pb)
    for field in params.message_type[0].field:
        field.json_name = field.name
    config = base64.b64encode(FileDescriptorSet(file=[params]).SerializeToString()).decode()
    attributes = [
        "api.service",
        "api.version",
        "api.operation",
        "api.protocol",
        "api.context",
        "resource.scope",
    ]
    check = {
        "auth_header_value": 'request.headers["authorization"]',
        "api_name": 'api.service | ""',
        "api_version": 'api.version | ""',
        "api_context": 'api.context | ""',
        "resource_path": 'request.url_path | ""',
        "request_method": 'request.method | ""',
        "request_resource": 'api.operation | ""',
        "request_scope": 'resource.scope | ""',
    }
    report = {
        "auth_header_value": 'request.headers["authorization"]',
        "api_context": 'api.context | ""',
        "api_name": 'api.service | ""',
        "api_version": 'api.version | ""',
        "resource_path": 'request.url_path | ""',
        "resource_path_template": 'api.operation | ""',
        "request_method": 'request.method | ""',
        "user_ip": 'source.ip | ip("0.0.0.0")',
        "user_agent": 'request.useragent | ""',
        "request_timestamp": "request.time",
        "response_timestamp": "response.time",
        "response_size": "response.size | 0",
        "api_protocol": 'api.protocol | "http"',
        "response_code": "response.code | 0",
        "destination": 'destination.service.host | ""',
        "request_host": 'request.host | ""',
    }
    specs: list[tuple[str, str, Manifest]] = [
        ("attributemanifest", "istio-proxy",
         {"attributes": {name: {"valueType": "STRING"} for name in attributes}}),
        ("template", "authorization", {"descriptor": write_template_descriptor("authorization")}),
        ("template", "metric", {"descriptor": write_template_descriptor("metric")}),
        ("adapter", "wso2", {
            "description": "", "session_based": False, "templates": ["authorization", "metric"],
            "config": config}),
        ("handler", "wso2-handler", {
            "adapter": "wso2",
            "connection": {"address": "wso2adapterservice:44225"},
            "params": {
                "validate_subscription": "true",
                "disable_hostname_verification": "true",
                "request_stream_app_url": "analytics.wso2:7575",
                "fault_stream_app_url": "analytics.wso2:7576",
                "throttle_stream_app_url": "analytics.wso2:7577",
                "grpc_pool_size": "5",
                "grpc_pool_initial_size": "1"}}),
        ("instance", "wso2-authorization", {
            "template": "authorization", "params": {"subject": {"properties": check}}}),
        ("instance", "wso2-metrics", {
            "template": "metric", "params": {"value": "request.size | 0", "dimensions": report}}),
        ("rule", "httpbinapi-rule", {
            "match": 'context.reporter.kind == "inbound" && destination.namespace == "default" '
                     '&& destination.service.name == "httpbin"',
            "actions": [{"handler": "wso2-handler.istio-system",
                         "instances": ["wso2-authorization", "wso2-metrics"]}]}),
    ]  # fmt: skip
    return [
        {
            "apiVersion": "config.istio.io/v1alpha2",
            "kind": kind,
            "metadata": {"name": name, "namespace": "istio-system"},
            "spec": spec,
        }
        for kind, name, spec in specs
    ]


def published(operation: str, **headers: str) -> dict[str, Any]:
    """A request to an API that the API Manager has published with an HTTPAPISpec: the sidecar
    sees no base path, and operations stand in quotes."""
    return {
        **request(operation, **headers),
        "api.service": "HttpbinAPI",
        "api.version": "1.0.0",
        "api.context": "/httpbin/1.0.0",
        "api.operation": f'"{operation}"',
    }


@pytest.fixture(params=["as installed", "made by the command"])
async def wso2(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Running]:
    objects = wso2_objects()
    if request.param == "made by the command":
        # All but the rule, which the API Manager has published.
        made = await make_objects(folder, "--compat", "wso2-adapter")
        objects = [*made, objects[-1]]
    async with mesh(folder, objects) as found:
        yield found


@pytest.mark.parametrize(
    ("credential", "status", "said"),
    [
        ({}, 200, ""),
        (None, 401, "UNAUTHENTICATED:wso2-handler.handler.istio-system:Missing Credentials..."),
        ("a.b.c", 401, "UNAUTHENTICATED:wso2-handler.handler.istio-system:Unauthorized!"),
        ({"exp": 1}, 401, "UNAUTHENTICATED:wso2-handler.handler.istio-system:Unauthorized!"),
        ({"azp": "nobody"}, 403,
         "PERMISSION_DENIED:wso2-handler.handler.istio-system:Resource forbidden"),
    ],
    ids=["good", "missing", "no token", "expired", "not subscribed"],
)  # fmt: skip
async def test_objects_of_wso2s_adapter_go_on(
    credential: str | dict[str, Any] | None, status: int, said: str, wso2: Running
) -> None:
    # Made here: a token of the time of collection may have expired in a long run.
    sent = token(**credential) if isinstance(credential, dict) else credential
    headers = {} if sent is None else {"authorization": f"Bearer {sent}"}
    answer = await wso2.get(published("/ip", **headers))
    assert (answer.status, answer.body) == (status, said)


async def test_limits_hold_at_last_for_objects_of_wso2s_adapter(wso2: Running) -> None:
    proxy = wso2.proxy()
    limited = published("/few", authorization=f"Bearer {token()}")
    found = [(await proxy.request(limited)).status for _ in range(4)]
    assert found == [200, 200, 200, 429]


async def test_reports_of_wso2s_instances_are_read(wso2: Running) -> None:
    await wso2.mixer.report([{**response(), **published("/ip")}])
