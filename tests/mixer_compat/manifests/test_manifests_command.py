"""``extauthz mixer-manifests``: reads a configuration, prints objects; and those kept in istio/."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.cli import main
from tests.mixer_compat.standin.config import read_snapshot

ROOT = Path(__file__).resolve().parents[3]
KEPT = sorted((ROOT / "istio" / "mixer").glob("*/kustomization.yaml"))

SETTINGS = "catalog: {files: [catalog.yaml]}\nlisten: {mixer: 0.0.0.0:44225}\n"
CATALOG = """\
apis:
  - name: Pets
    version: v1
    context: /pets/v1
    security: [jwt, api_key]
    resources: [{methods: [GET], path: /*}]
  - {name: Two, version: v1, context: /two/v1, resources: [{methods: [GET], path: /*}]}
  - {name: Two, version: v2, context: /two/v2, resources: [{methods: [GET], path: /*}]}
"""


class Printed:
    """What the command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def objects(self) -> list[Any]:
        return list(yaml.safe_load_all(self.out))

    def spec(self, kind: str, name: str) -> Any:
        (found,) = [
            each["spec"]
            for each in self.objects
            if (each["kind"], each["metadata"]["name"]) == (kind, name)
        ]
        return found

    @property
    def properties(self) -> dict[str, str]:
        """Of the check."""
        found = self.spec("instance", "extauthz-check")["params"]["subject"]["properties"]
        assert isinstance(found, dict)
        return found


class Folder:
    """A folder with settings and a catalog, where the command is run."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path, self._capsys = path, capsys

    def __call__(
        self, *arguments: str, settings: str = SETTINGS, catalog: str = CATALOG
    ) -> Printed:
        (self._path / "extauthz.yaml").write_text(settings)
        (self._path / "catalog.yaml").write_text(catalog)
        code = main(["mixer-manifests", *arguments])
        said = self._capsys.readouterr()
        return Printed(code, said.out, said.err)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, capsys)


def test_prints_objects_that_mixer_takes(run: Folder) -> None:
    done = run()
    assert (done.code, done.err) == (0, "")
    snapshot = read_snapshot(done.objects)
    assert snapshot.errors == []
    (rule,) = snapshot.rules
    assert [handler.name for handler, _ in rule.actions] == ["extauthz.handler.istio-system"]


def test_begins_with_what_mixer_does_with_a_mistake(run: Folder) -> None:
    out = run().out
    head = out[: out.index("---\n")]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "FAILS OPEN" in head and "kubectl -n istio-system logs" in head
    assert "denied: 401" in head and "each HTTP request" in head
    narrow = run("--service", "pets.shop", "--namespace", "mixers").out
    assert "each HTTP request" not in narrow and "kubectl -n mixers logs" in narrow


@pytest.mark.parametrize(
    ("istio", "said"),
    [
        ("1.1", "--set global.disablePolicyChecks=false"),
        ("1.3", "--set global.disablePolicyChecks=false"),
        ("1.4", "manifest apply --set values.global.disablePolicyChecks=false"),
        ("1.5", "manifest apply --set values.global.disablePolicyChecks=false"),
        ("1.7", "install --set meshConfig.disablePolicyChecks=false"),
    ],
)
def test_says_how_this_istio_turns_checks_on(istio: str, said: str, run: Folder) -> None:
    done = run("--istio", istio)
    assert f"Istio {istio}," in done.out and said in done.out
    assert read_snapshot(done.objects).errors == []


def test_an_istio_without_mixer_is_wrong_usage(
    run: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--istio", "1.8")
    assert ended.value.code == 2 and "1.8" in capsys.readouterr().err


def test_the_address_can_be_told(run: Folder) -> None:
    told = run("--address", "10.0.0.7:7").spec("handler", "extauthz")
    assert told["connection"] == {"address": "10.0.0.7:7", "timeout": "1s"}


@pytest.mark.parametrize(
    ("listens", "address"),
    [
        ("0.0.0.0:7", "extauthz.extauthz.svc.cluster.local:7"),
        ("[::]:7", "extauthz.extauthz.svc.cluster.local:7"),
        ("10.0.0.7:8", "10.0.0.7:8"),
    ],
)
def test_the_address_follows_the_door(listens: str, address: str, run: Folder) -> None:
    settings = SETTINGS.replace("0.0.0.0:44225", f"'{listens}'")
    handler = run(settings=settings).spec("handler", "extauthz")
    assert handler["connection"]["address"] == address


def test_a_socket_has_no_address_for_mixer(run: Folder) -> None:
    done = run(settings=SETTINGS.replace("0.0.0.0:44225", "unix:/run/mixer.sock"))
    assert (done.code, done.out) == (2, "") and "--address HOST:PORT" in done.err


def test_a_closed_door_is_told(run: Folder) -> None:
    done = run(settings="catalog: {files: [catalog.yaml]}\n")
    assert done.code == 0 and done.err == (
        "extauthz: nobody listens for Mixer yet: set listen.mixer\n"
    )
    handler = done.spec("handler", "extauthz")
    assert handler["connection"]["address"] == "extauthz.extauthz.svc.cluster.local:44225"


def test_sends_the_places_of_credentials(run: Folder) -> None:
    properties = run().properties
    assert properties["credential"] == 'request.headers["authorization"] | ""'
    assert properties["header_x-api-key"] == 'request.headers["x-api-key"] | ""'
    assert properties["path"] == 'request.path | ""'  # an API key may stand in the query


def test_sends_nothing_that_is_not_asked_for(run: Folder) -> None:
    catalog = """\
apis:
  - {name: Open, version: v1, security: [none], resources: [{methods: [GET], path: /*}]}
"""
    properties = run(catalog=catalog).properties
    assert properties["path"] == 'request.url_path | ""'
    assert [name for name in properties if name.startswith("header_")] == ["header_content-type"]


@pytest.mark.parametrize(
    ("settings", "catalog", "header"),
    [
        ("credentials: {trusted_hops: 1}\n", "", "x-forwarded-for"),
        ("credentials: {trust_xfcc: true}\n", "", "x-forwarded-client-cert"),
        ("credentials: {api_key: [{cookie: sid}]}\n", "", "cookie"),
        ("responses: {profile: wso2}\n", "", "accept"),
        ("", 'custom_limits: [{name: a, key: "$header.X-Tenant", tier: Unlimited}]\n', "x-tenant"),
        (
            "",
            "custom_limits: [{name: a, key: all, tier: Unlimited, "
            "when: [{header: {name: X-Bot, matches: a}}]}]\n",
            "x-bot",
        ),
        (
            "",
            "tiers: {T: {conditions: [{when: [{header: {name: X-Plan, matches: a}}], "
            "limits: [{requests: 1, per: 1m}]}]}}\n",
            "x-plan",
        ),
        (
            "",
            "applications: [{name: a, api_keys: [{sha256: "
            + "0" * 64
            + ", referers: [https://a.example/]}]}]\n",
            "referer",
        ),
    ],
)
def test_sends_what_settings_and_limits_ask_for(
    settings: str, catalog: str, header: str, run: Folder
) -> None:
    assert f"header_{header}" not in run().properties
    done = run(settings=SETTINGS + settings, catalog=CATALOG + catalog)
    assert done.properties[f"header_{header}"] == f'request.headers["{header}"] | ""'
    headers = done.spec("handler", "extauthz")["params"]["properties"]["headers"]
    assert headers[f"header_{header}"] == header


@pytest.mark.parametrize(
    ("more", "name", "expression"),
    [
        (", allow_preflight: true", "header_origin", 'request.headers["origin"] | ""'),
        (", security: [mtls]", "principal", 'source.principal | ""'),
        (", bearer_header: x-token", "header_x-token", 'request.headers["x-token"] | ""'),
    ],
)
def test_sends_what_an_api_asks_for(more: str, name: str, expression: str, run: Folder) -> None:
    catalog = (
        "apis: [{name: A, version: v1, security: [jwt], resources: [{methods: [GET], path: /*}]"
    )
    assert name not in run(catalog=f"{catalog}}}]\n").properties
    catalog = catalog.replace(", security: [jwt]", "") if "security" in more else catalog
    assert run(catalog=f"{catalog}{more}}}]\n").properties[name] == expression


@pytest.mark.parametrize(
    ("cost", "name", "expression"),
    [
        ("cost: {header: x-items, max: 9}", "header_x-items", 'request.headers["x-items"] | ""'),
        ("cost: {query: items, max: 9}", "path", 'request.path | ""'),
    ],
)
def test_sends_what_tells_the_cost(cost: str, name: str, expression: str, run: Folder) -> None:
    catalog = (
        "apis: [{name: A, version: v1, security: [jwt], "
        f"resources: [{{methods: [GET], path: /*, {cost}}}]}}]\n"
    )
    assert run(catalog=catalog).properties[name] == expression


def test_sends_the_id_of_a_request_whose_decisions_are_compared(run: Folder) -> None:
    """It is another one each time, so that no proxy could reuse an answer."""
    assert "request_id" not in run().properties
    wanted = 'request.headers["x-request-id"] | ""'
    assert run("--shadow").properties["request_id"] == wanted
    compared = run(settings=SETTINGS + "server: {shadow: mixer}\n")
    assert compared.properties["request_id"] == wanted
    report = run().spec("instance", "extauthz-report")["params"]["dimensions"]
    assert report["request_id"] == wanted


def test_an_api_may_be_named_without_its_only_version(run: Folder) -> None:
    with_version = run("--service", "pets.shop=Pets:v1")
    assert with_version.out == run("--service", "pets.shop=Pets").out
    assert "extauthz-pets-v1" in with_version.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--service", "pets.shop=Cats"], "the API Cats is not in the catalog; there are Pets:v1"),
        (["--service", "pets.shop=Two"], "the API Two has several versions"),
        (["--service", "pets"], "'' in 'pets.' is no name of a service or namespace"),
        (["--namespace", "A B"], "'A B' is no name of a namespace"),
        (["--address", "extauthz"], "write host:port"),
        (["--address", "extauthz:0"], "--address extauthz:0: Mixer needs HOST:PORT"),
        (["--address", "unix:/run/mixer.sock"], "Mixer needs HOST:PORT"),
        (["--quota"], "quotas are bound to services"),
        (["--ca", "/ca"], "--ca and --server-name go together"),
        (["--ca", "/ca", "--server-name", "a"], "one proof of itself"),
        (["--ca", "/c", "--server-name", "a", "--token", "/t", "--cert", "/c", "--key", "/k"],
         "one proof of itself"),
        (["--token", "/t"], "--token and --cert go with --ca"),
        (["--cert", "/c"], "--cert and --key go together"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_2(arguments: list[str], said: str, run: Folder) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err and done.err.count("\n") == 1


TLS = "mixer: {tls: {cert: a.crt, key: a.key}}\n"
MUTUAL = "mixer: {tls: {cert: a.crt, key: a.key, client_ca: ca.crt}}\n"
TOKEN = "mixer: {callers: {token_file: tokens}}\n"
CUSTOM = "mixer: {tls: {cert: a.crt, key: a.key}, callers: {token_header: x-mixer}}\n"
WITH_CA = ["--ca", "/ca.crt", "--server-name", "extauthz"]
WITH_TOKEN = [*WITH_CA, "--token", "/token"]


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        (TLS, [], "takes TLS only"),
        (MUTUAL, WITH_TOKEN, "asks for a certificate"),
        (TOKEN, [], "asks for a token"),
    ],
)
def test_a_handler_that_could_not_connect_is_not_made(
    settings: str, arguments: list[str], said: str, run: Folder
) -> None:
    done = run(*arguments, settings=SETTINGS + settings)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("settings", "arguments", "authentication"),
    [
        (TLS, WITH_TOKEN, {
            "tls": {"caCertificates": "/ca.crt", "serverName": "extauthz", "tokenPath": "/token",
                    "authHeader": "BEARER"}}),
        (CUSTOM, WITH_TOKEN, {
            "tls": {"caCertificates": "/ca.crt", "serverName": "extauthz", "tokenPath": "/token",
                    "customHeader": "x-mixer"}}),
        (MUTUAL, [*WITH_CA, "--cert", "/tls.crt", "--key", "/tls.key"], {
            "mutual": {"caCertificates": "/ca.crt", "serverName": "extauthz",
                       "clientCertificate": "/tls.crt", "privateKey": "/tls.key"}}),
    ],
)  # fmt: skip
def test_tls_has_the_proof_that_mixer_insists_on(
    settings: str, arguments: list[str], authentication: object, run: Folder
) -> None:
    done = run(*arguments, settings=SETTINGS + settings)
    assert done.spec("handler", "extauthz")["connection"]["authentication"] == authentication
    assert read_snapshot(done.objects).errors == []


# What is kept in istio/mixer


def test_there_are_kept_objects() -> None:
    assert [path.parent.name for path in KEPT] == ["checks", "quota", "wso2-adapter"]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_kept_objects_are_what_their_command_prints(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = re.search(r"^#   extauthz (.*)$", path.read_text(), flags=re.MULTILINE)
    assert command is not None
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command[1])) == 0
    printed = capsys.readouterr().out
    kept = path.with_name("objects.yaml").read_text()
    assert printed == kept, f"run: extauthz {command[1]} > {path.parent}/objects.yaml"
    assert yaml.safe_load(path.read_text())["resources"] == ["objects.yaml"]
    assert read_snapshot(yaml.safe_load_all(kept)).errors == []
