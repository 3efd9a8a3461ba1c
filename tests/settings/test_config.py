"""Settings: what is taken, what is refused and how it is said, and what the environment may do."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.answers.backend_jwt_style import SigningAlgorithm
from extauthz.answers.limit_headers import LimitHeaderStyle
from extauthz.answers.upstream import IdentityFact
from extauthz.app.counting import read_redis_settings
from extauthz.documents.document import write_duration
from extauthz.errors import ConfigError
from extauthz.settings.reading import read_secret_file, read_settings
from extauthz.settings.tree import Settings, settings_schema
from tests.json_schema import find_schema_faults

MINIMAL = "catalog: {files: [catalog/]}\n"

FULL = """\
listen: {grpc: "[::1]:9001"}
server:
  host: grpcio
  tls: {cert: tls/tls.crt, key: tls/tls.key, client_ca: tls/ca.crt}
  max_in_flight: 50
  max_streams: 7
  max_connection_age: 5m
  drain_delay: 3s
  grace: 250ms
catalog: {files: [apis.yaml, consumers/]}
counters: {store: memory, max_keys: 1000}
http: {proxy: "http://us:hunter2@proxy.example:3128", no_proxy: [.svc.local, "[::1]"]}
credentials:
  bearer: [{header: Authorization}, {cookie: session}]
  api_key: [{header: X-Api-Key}, {query: key}]
  api_key_pepper_file: pepper
  trust_xfcc: true
  trusted_hops: 2
  failed_attempts: {requests: 10, per: 30s}
  cache_size: 0
paths: {unnormalised: refuse}
responses:
  profile: wso2
  identity_headers: {user: X-User, key_type: x-key-type}
  backend_jwt: {private_key_file: jwt.pem, header: X-Assertion, algorithm: ES256, ttl: 1h}
  realm: shop
  rate_limit_headers: both
  error_response: true
log: {level: debug}
"""


def read(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> Settings:
    file = folder / "extauthz.yaml"
    file.write_text(text)
    return read_settings(file, environment or {})


def problems_of(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, environment)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_catalog_is_all_that_must_be_said(tmp_path: Path) -> None:
    settings = read(tmp_path, MINIMAL)
    assert settings == Settings.model_validate({"catalog": {"files": [tmp_path / "catalog"]}})


def test_every_key_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    assert settings.listen.grpc == "[::1]:9001"
    server = settings.server
    assert (server.max_in_flight, server.max_streams) == (50, 7)
    assert (server.max_connection_age, server.drain_delay) == (300_000_000, 3_000_000)
    assert server.grace == 250_000
    assert settings.counters.max_keys == 1000
    http = settings.http
    assert http.proxy is not None
    assert http.proxy.get_secret_value() == "http://us:hunter2@proxy.example:3128"
    assert http.no_proxy == (".svc.local", "::1") and "hunter2" not in repr(settings)
    credentials = settings.credentials
    assert [place.header or place.cookie for place in credentials.bearer] == [
        "authorization",
        "session",
    ]
    assert [place.header or place.query for place in credentials.api_key] == ["x-api-key", "key"]
    assert credentials.trust_xfcc and credentials.trusted_hops == 2
    assert (credentials.failed_attempts.requests, credentials.failed_attempts.per) == (
        10,
        30 * 10**6,
    )
    responses = settings.responses
    assert responses.identity_headers == {
        IdentityFact.USER: "x-user",
        IdentityFact.KEY_TYPE: "x-key-type",
    }
    assert responses.rate_limit_headers is LimitHeaderStyle.BOTH and responses.error_response
    assert responses.backend_jwt is not None
    assert responses.backend_jwt.algorithm is SigningAlgorithm.ES256
    assert responses.backend_jwt.ttl == 3_600_000_000
    assert settings.log.level == "debug"


def test_file_names_are_relative_to_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "extauthz.yaml").write_text(FULL)
    monkeypatch.chdir(tmp_path)
    settings = read_settings(Path("etc/extauthz.yaml"), {"EXTAUTHZ_CATALOG__FILES": "[a, /b]"})
    assert settings.catalog.files == (folder / "a", Path("/b"))
    tls, jwt = settings.server.tls, settings.responses.backend_jwt
    assert tls is not None and jwt is not None
    assert (tls.cert, tls.key) == (folder / "tls/tls.crt", folder / "tls/tls.key")
    assert tls.client_ca == folder / "tls/ca.crt"
    assert settings.credentials.api_key_pepper_file == folder / "pepper"
    assert jwt.private_key_file == folder / "jwt.pem"


BAD: dict[str, tuple[str, list[str]]] = {
    "nothing": ("", ["extauthz.yaml:1: is empty; write it like `key: value`"]),
    "a list": ("- a", ["extauthz.yaml:1: must have keys and values at its top level; write it"]),
    "no catalog": ("listen: {}", ["extauthz.yaml:1: catalog is missing; add it"]),
    "no files": ("catalog: {files: []}", ["extauthz.yaml:1: catalog.files: must not be empty"]),
    "unknown section": (
        MINIMAL + "lissten: {}",
        ["extauthz.yaml:2: lissten: unknown key 'lissten'; did you mean 'listen'?"],
    ),
    "unknown key": (
        MINIMAL + "server:\n  gracee: 1s",
        ["extauthz.yaml:3: server.gracee: unknown key 'gracee'; did you mean 'grace'?"],
    ),
    "all at once": (
        "server: {grace: soon}\nlog:\n  level: loud\n" + MINIMAL + "responses: {profile: soap}",
        [
            "extauthz.yaml:1: server.grace: must be a duration",
            "extauthz.yaml:3: log.level: must be one of debug, info, warning, error",
            "extauthz.yaml:5: responses.profile: must be one of standard, wso2",
        ],
    ),
    "port": (
        MINIMAL + "listen: {grpc: 'h:99999'}",
        ["extauthz.yaml:2: listen.grpc: the port must be a number from 0 to 65535"],
    ),
    "bare IPv6": (
        MINIMAL + "listen: {grpc: '::1:9001'}",
        ["extauthz.yaml:2: listen.grpc: write an IPv6 address in brackets, like [::1]:9001"],
    ),
    "relative socket": (
        MINIMAL + "listen: {grpc: 'unix:grpc.sock'}",
        ["extauthz.yaml:2: listen.grpc: write the socket's whole path"],
    ),
    "two listeners": (
        MINIMAL + "listen:\n  grpc: 127.0.0.1:9001\n  admin: 127.0.0.1:9001",
        ["extauthz.yaml:4: listen.admin: listen.grpc is at 127.0.0.1:9001 already; name another"],
    ),
    "a listener at the default": (
        MINIMAL + "listen: {mixer: 'localhost:9001'}",
        ["extauthz.yaml:2: listen.mixer: listen.grpc is at 127.0.0.1:9001 already"],
    ),
    "three listeners": (
        MINIMAL + "listen: {grpc: 'unix:/run/a', mixer: 'unix:/run/./a', admin: 'unix:/run/b/../a'}",
        [
            "extauthz.yaml:2: listen.mixer: listen.grpc is at unix:/run/a already",
            "extauthz.yaml:2: listen.admin: listen.grpc is at unix:/run/a already",
        ],
    ),
    "no time": (
        MINIMAL + "credentials: {failed_attempts: {per: 0s}}",
        ["extauthz.yaml:2: credentials.failed_attempts.per: must be greater than 0"],
    ),
    "two places": (
        MINIMAL + "credentials: {api_key: [{header: a, query: b}]}",
        ["extauthz.yaml:2: credentials.api_key[0]: must have exactly one of header, query and"],
    ),
    "no place": (
        MINIMAL + "credentials: {bearer: []}",
        ["extauthz.yaml:2: credentials.bearer: must not be empty"],
    ),
    "cookie name": (
        MINIMAL + "credentials: {bearer: [{cookie: a=b}]}",
        ["extauthz.yaml:2: credentials.bearer[0].cookie: must be the name of a cookie"],
    ),
    "parameter name": (
        MINIMAL + "credentials: {bearer: [{query: a&b}]}",
        ["extauthz.yaml:2: credentials.bearer[0].query: must be the name of a query parameter"],
    ),
    "a proxy without a scheme": (
        MINIMAL + "http: {proxy: proxy.example:3128}",
        ["extauthz.yaml:2: http.proxy: must be an http or https URL of a host"],
    ),
    "a proxy of another kind": (
        MINIMAL + "http: {proxy: socks5://proxy.example}",
        ["extauthz.yaml:2: http.proxy: must be an http or https URL of a host"],
    ),
    "a network without proxy": (
        MINIMAL + "http: {no_proxy: [10.0.0.0/8]}",
        ["extauthz.yaml:2: http.no_proxy[0]: must be a host's name or address alone"],
    ),
    "a port without proxy": (
        MINIMAL + 'http: {no_proxy: ["idp.example:443"]}',
        ["extauthz.yaml:2: http.no_proxy[0]: must be a host's name or address alone"],
    ),
    "short token": (
        MINIMAL + "responses: {backend_jwt: {private_key_file: k, ttl: 1s}}",
        ["extauthz.yaml:2: responses.backend_jwt.ttl: must be from 10s to 1d"],
    ),
    "no key": (
        MINIMAL + "responses:\n  backend_jwt: {ttl: 1h}",
        ["extauthz.yaml:3: responses.backend_jwt: private_key_file is missing; add it"],
    ),
    "fact": (
        MINIMAL + "responses: {identity_headers: {usr: x-user}}",
        ["extauthz.yaml:2: responses.identity_headers.usr: must be one of application, user"],
    ),
    "twice": (
        MINIMAL + "responses:\n  identity_headers:\n    user: x-who\n    tier: X_Who",
        ["extauthz.yaml:5: responses.identity_headers.tier: x_who stands here twice"],
    ),
    "twice with the token": (
        MINIMAL + "responses:\n  identity_headers: {user: x-who}\n"
        "  backend_jwt: {header: x-who, private_key_file: k}",
        ["extauthz.yaml:4: responses.backend_jwt.header: x-who stands here twice"],
    ),
    "a credential's header": (
        MINIMAL + "responses: {identity_headers: {user: Authorization}}",
        ["extauthz.yaml:2: responses.identity_headers.user: a client's credential stands in"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_says_what_is_wrong_where_and_what_to_do(
    text: str, expected: list[str], tmp_path: Path
) -> None:
    found = problems_of(tmp_path, text)
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "trailer"),
        *(":path", "", "x user", "x-user:", "naïve", "x-" + "a" * 300),
        *("x-envoy-retry-on", "X-Forwarded-For", "cookie", "set-cookie"),
    ],
)
def test_refuses_an_identity_header_that_would_break_requests(name: str, tmp_path: Path) -> None:
    text = yaml.safe_dump(
        {"catalog": {"files": ["a"]}, "responses": {"identity_headers": {"user": name}}},
        allow_unicode=True,
    )
    (problem,) = problems_of(tmp_path, text)
    assert "responses.identity_headers.user: " in problem


@pytest.mark.parametrize("name", ["Host", "content-length", "connection", ":authority"])
def test_refuses_a_credential_where_the_proxy_keeps_its_own_things(
    name: str, tmp_path: Path
) -> None:
    text = f"{MINIMAL}credentials: {{api_key: [{{header: '{name}'}}]}}"
    (problem,) = problems_of(tmp_path, text)
    assert "credentials.api_key[0].header: " in problem


def test_authorization_is_free_when_no_credential_stands_there(tmp_path: Path) -> None:
    text = (
        MINIMAL + "credentials: {bearer: [{header: x-token}]}\n"
        "responses: {identity_headers: {user: authorization}}"
    )
    settings = read(tmp_path, text)
    assert settings.responses.identity_headers == {IdentityFact.USER: "authorization"}


@pytest.mark.parametrize(
    "tree",
    [
        {"analytics": {"sink": "log"}},
    ],
    ids=str,
)
def test_says_that_a_key_is_not_part_of_this_release(tree: dict[str, Any], tmp_path: Path) -> None:
    text = yaml.safe_dump({"catalog": {"files": ["a"]}, **tree})
    (problem,) = problems_of(tmp_path, text)
    assert "is not part of this release; " in problem
    assert re.match(r"extauthz.yaml:\d+: ", problem)


def test_what_is_not_in_this_release_hides_no_other_problem(tmp_path: Path) -> None:
    text = MINIMAL + "listen: {grpc: nowhere}\nanalytics: {}\nlog: {level: loud}"
    found = problems_of(tmp_path, text)
    assert [problem.split(": ")[1] for problem in found] == [
        "analytics",
        "listen.grpc",
        "log.level",
    ]


# The environment


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    text = MINIMAL + "server: {max_in_flight: 5, max_streams: 6}"
    settings = read(tmp_path, text, {"EXTAUTHZ_SERVER__MAX_IN_FLIGHT": "7"})
    server = settings.server
    assert (server.max_in_flight, server.max_streams, server.grace) == (7, 6, 10_000_000)


@pytest.mark.parametrize(
    ("variable", "text", "path", "expected"),
    [
        ("EXTAUTHZ_LISTEN__GRPC", "0.0.0.0:7", "listen.grpc", "0.0.0.0:7"),
        ("EXTAUTHZ_CREDENTIALS__TRUST_XFCC", "true", "credentials.trust_xfcc", True),
        ("EXTAUTHZ_CREDENTIALS__TRUST_XFCC", "False", "credentials.trust_xfcc", False),
        ("EXTAUTHZ_CREDENTIALS__FAILED_ATTEMPTS__PER", "2s", "credentials.failed_attempts.per", 2_000_000),
        ("EXTAUTHZ_RESPONSES__IDENTITY_HEADERS", "{user: x-u}", "responses.identity_headers", {IdentityFact.USER: "x-u"}),
        ("EXTAUTHZ_SERVER__TLS", "null", "server.tls", None),
        ("EXTAUTHZ_LOG__LEVEL", "", "log.level", "debug"),
    ],
)  # fmt: skip
def test_a_variable_sets_a_value(
    variable: str, text: str, path: str, expected: object, tmp_path: Path
) -> None:
    found: Any = read(tmp_path, FULL, {variable: text})
    for name in path.split("."):
        found = getattr(found, name)
    assert found == expected


def test_a_list_is_written_in_flow_style(tmp_path: Path) -> None:
    variables = {"EXTAUTHZ_CREDENTIALS__API_KEY": "[{header: X-Key}, {query: key}]"}
    places = read(tmp_path, MINIMAL, variables).credentials.api_key
    assert [(place.header, place.query) for place in places] == [("x-key", None), (None, "key")]


def test_leaves_the_variables_of_kubernetes_and_others_alone(tmp_path: Path) -> None:
    others = {
        "EXTAUTHZ_SERVICE_HOST": "10.0.0.1",
        "EXTAUTHZ_SERVICE_PORT": "9001",
        "EXTAUTHZ_PORT": "tcp://10.0.0.1:9001",
        "EXTAUTHZ_PORT_9001_TCP": "tcp://10.0.0.1:9001",
        "EXTAUTHZ_PORT_9001_TCP_ADDR": "10.0.0.1",
        "OTHER__LISTEN__GRPC": "x",
        "extauthz_listen__grpc": "x",
    }
    assert read(tmp_path, MINIMAL, others) == read(tmp_path, MINIMAL)


@pytest.mark.parametrize(
    ("variable", "text", "beginning"),
    [
        ("EXTAUTHZ_LISSTEN__GRPC", "a", "lissten: unknown key 'lissten'; did you mean 'listen'?"),
        ("EXTAUTHZ_LISTEN__GRPCC", "a", "listen.grpcc: unknown key 'grpcc'"),
        ("EXTAUTHZ_LISTEN__GRPC", "a", "listen.grpc: write host:port"),
        ("EXTAUTHZ_SERVER__TLS__CERT", "a", "server.tls: key is missing"),
        ("EXTAUTHZ_CATALOG__FILES__0", "a", "catalog.files has no keys below it"),
        ("EXTAUTHZ_CREDENTIALS__BEARER", "[{heather: a}]", "credentials.bearer[0].heather: unknown"),
        ("EXTAUTHZ_ANALYTICS__SINK", "log", "analytics: is not part of this release"),
        ("EXTAUTHZ_COUNTERS__STORE", "redis", "counters: store: redis needs a url"),
        ("EXTAUTHZ_COUNTERS__URL", "http://x", "counters: url is for store: redis"),
    ],
)  # fmt: skip
def test_names_the_variable_that_is_wrong(
    variable: str, text: str, beginning: str, tmp_path: Path
) -> None:
    found = problems_of(tmp_path, MINIMAL, {variable: text})
    assert any(problem.startswith(f"{variable}: {beginning}") for problem in found), found
    assert all(problem.startswith(variable) for problem in found)


def test_a_variable_that_is_no_list_is_a_problem_of_its_own(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, MINIMAL, {"EXTAUTHZ_CATALOG__FILES": "[a, b"})
    assert problem.startswith("EXTAUTHZ_CATALOG__FILES: is not YAML")


def test_a_problem_of_the_file_keeps_its_line_beside_a_variable(tmp_path: Path) -> None:
    text = MINIMAL + "server:\n  tls: {cert: a}\n"
    found = problems_of(tmp_path, text, {"EXTAUTHZ_SERVER__GRACE": "1s"})
    assert found == ["extauthz.yaml:3: server.tls: key is missing; add it (PEM file: the private "
                     "key, without a password)"]  # fmt: skip


# Secrets


def test_no_problem_shows_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cr3t-value"
    text = (
        f"catalog: {{files: [a]}}\nlisten: {{grpc: {secret}}}\nserver: {{grace: {secret}, "
        f"max_in_flight: {secret}, tls: {secret}}}\ncredentials: {{trust_xfcc: {secret}, "
        f"bearer: {secret}, api_key: [{{header: '{secret} {secret}'}}]}}\n"
        f"responses: {{profile: {secret}, realm: '{secret}!', identity_headers: {secret}}}\n"
    )
    with caplog.at_level(logging.DEBUG):
        found = problems_of(tmp_path, text, {"EXTAUTHZ_LOG__LEVEL": secret})
    assert len(found) == 11
    assert secret not in "\n".join(found) + caplog.text


@pytest.mark.parametrize("content", [b" pepper\n", b"pepper"])
def test_a_secret_file_holds_text_without_white_space_around_it(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "pepper").write_bytes(content)
    assert read_secret_file(tmp_path / "pepper").reveal() == "pepper"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "is not UTF-8"), (b"a" * 5000, "larger")],
)  # fmt: skip
def test_refuses_a_secret_file_that_holds_none(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "pepper").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_secret_file(tmp_path / "pepper")


# The schema


@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_the_schema_accepts_what_is_accepted(text: str) -> None:
    assert not list(find_schema_faults(yaml.safe_load(text), settings_schema()))


@pytest.mark.parametrize(
    "text",
    ["listen: {}", MINIMAL + "x: 1", MINIMAL + "log: {level: loud}", "catalog: {files: []}",
     MINIMAL + "server: {grace: soon}", MINIMAL + "server: {max_in_flight: 0}",
     MINIMAL + "responses: {identity_headers: {usr: a}}"],
)  # fmt: skip
def test_the_schema_refuses_what_is_refused(text: str, tmp_path: Path) -> None:
    assert problems_of(tmp_path, text)
    assert list(find_schema_faults(yaml.safe_load(text), settings_schema()))


def test_the_schema_says_its_draft_and_describes_every_key() -> None:
    schema = settings_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    parts = [
        part
        for section in (schema, *schema["$defs"].values())
        for part in section.get("properties", {}).values()
    ]
    assert len(parts) > 40
    for part in parts:
        # Where a key is described as its section is, that stands with the section alone.
        section = schema["$defs"].get(part.get("$ref", "").removeprefix("#/$defs/"), {})
        assert part.get("description") or section["description"]


def test_every_default_in_the_schema_fits_the_schema() -> None:
    schema = settings_schema()
    checked = 0
    for section in schema["$defs"].values():
        for part in section.get("properties", {}).values():
            if "default" in part:
                checked += 1
                assert not list(find_schema_faults(part["default"], part, schema))
    assert checked > 20


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [(0, "0s"), (1, "1us"), (1_500, "1500us"), (50_000, "50ms"), (90_000_000, "90s"),
     (60_000_000, "1m"), (3_600_000_000, "1h"), (86_400_000_000, "1d")],
)  # fmt: skip
def test_a_duration_is_written_in_its_largest_unit(duration_us: int, text: str) -> None:
    assert write_duration(duration_us) == text


# Workers


def test_a_worker_counts_as_one_of_all_and_is_watched_elsewhere(tmp_path: Path) -> None:
    text = (
        MINIMAL + "server: {workers: 4}\nlisten: {admin: '127.0.0.1:9901'}\n"
        "counters: {store: redis, url: 'redis://h', replicas: 3}"
    )
    settings = read(tmp_path, text).for_worker()
    assert (settings.server.workers, settings.counters.replicas) == (1, 12)
    assert settings.listen.admin is None


# Counters


@pytest.mark.parametrize(
    ("counters", "text"),
    [
        ({"store": "redis"}, "store: redis needs a url, like redis://127.0.0.1:6379/0"),
        ({"url": "redis://h"}, "url is for store: redis; write that, or remove url"),
        ({"store": "redis", "url": "http://h"}, "the scheme is not known; write redis://host:6379"),
        ({"store": "redis", "url": "redis+sentinel://h"}, "Sentinels need ?service="),
        ({"store": "redis", "url": "redis://h", "prefix": "{a}"}, "prefix"),
        ({"store": "redis", "url": "redis://h", "replicas": 0}, "replicas"),
    ],
    ids=str,
)
def test_says_what_is_wrong_with_the_counters(
    counters: dict[str, Any], text: str, tmp_path: Path
) -> None:
    (problem,) = problems_of(
        tmp_path, yaml.safe_dump({"catalog": {"files": ["a"]}, "counters": counters})
    )
    assert text in problem


def test_the_password_in_a_redis_url_shows_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "extauthz.yaml"
    url = "redis://user:very-secret@127.0.0.1:6379/0"
    tree = {"catalog": {"files": ["a"]}, "counters": {"store": "redis", "url": url}}
    file.write_text(yaml.safe_dump(tree))
    settings = read_settings(file, {})
    assert "very-secret" not in repr(settings)
    assert read_redis_settings(settings.counters).address.username == "user"
    bad = yaml.safe_dump({**tree, "counters": {"store": "redis", "url": url + "?x=1"}})
    (problem,) = problems_of(tmp_path, bad)
    assert "very-secret" not in problem
    assert "options that are not known: x" in problem


def test_redis_files_are_found_beside_the_settings(tmp_path: Path) -> None:
    counters = {
        "store": "redis",
        "url": "rediss://h",
        "password_file": "pw",
        "sentinel_password_file": "spw",
        "tls": {"ca": "ca.pem", "cert": "/abs/cert.pem"},
    }
    file = tmp_path / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"files": ["a"]}, "counters": counters}))
    found = read_settings(file, {}).counters
    assert found.password_file == tmp_path / "pw"
    assert found.sentinel_password_file == tmp_path / "spw"
    assert found.tls is not None
    assert (found.tls.ca, found.tls.cert) == (tmp_path / "ca.pem", Path("/abs/cert.pem"))
    assert found.tls.key is None


def test_a_word_that_is_no_longer_done_is_read_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = read(tmp_path, "catalog: {files: [a.yaml]}\npaths: {unnormalised: rewrite}\n")
    assert settings.paths.unnormalised.value == "rewrite"
    (record,) = caplog.records
    assert "paths.unnormalised: rewrite is no longer supported" in record.getMessage()
    assert "normalize_path" in record.getMessage()


def test_a_listener_of_the_environment_is_told_by_its_variable(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, MINIMAL, {"EXTAUTHZ_LISTEN__ADMIN": "0.0.0.0:9001"})
    assert problem.startswith("EXTAUTHZ_LISTEN__ADMIN: listen.admin: listen.grpc is at")


@pytest.mark.parametrize("word", ["yes", "on", "1", "tRUE", '"true"', "t"])
def test_only_true_and_false_are_booleans_in_the_environment_too(word: str, tmp_path: Path) -> None:
    variable = "EXTAUTHZ_CREDENTIALS__TRUST_XFCC"
    (problem,) = problems_of(tmp_path, MINIMAL, {variable: word})
    assert problem == f"{variable}: credentials.trust_xfcc: must be true or false, without quotes"
    for good, value in (("true", True), ("TRUE", True), ("False", False), ("~", False)):
        assert read(tmp_path, MINIMAL, {variable: good}).credentials.trust_xfcc is value


# The admin API


@pytest.mark.parametrize(
    ("admin", "more", "is_open"),
    [
        ("127.0.0.1:9003", "", True),
        ("127.9.9.9:9003", "", True),
        ("'[::1]:9003'", "", True),
        ("localhost:9003", "", True),
        ("unix:/run/admin.sock", "", True),
        ("127.0.0.1:9003", "admin: {api: false}", False),
        # What was opened for probes is not opened wider.
        ("0.0.0.0:9003", "", False),
        ("'[::]:9003'", "", False),
        ("10.1.2.3:9003", "", False),
        ("localhost.example:9003", "", False),
        ("0.0.0.0:9003", "admin: {token_file: t}", True),
        ("0.0.0.0:9003", "admin: {tls: {cert: c, key: k, client_ca: ca}}", True),
        ("0.0.0.0:9003", "admin: {tls: {cert: c, key: k}}", False),
        ("0.0.0.0:9003", "admin: {api: true, token_file: t}", True),
        ("0.0.0.0:9003", "admin: {api: false, token_file: t}", False),
    ],
)
def test_the_admin_api_is_open_where_it_is_known_who_may(
    admin: str,
    more: str,
    is_open: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    settings = read(tmp_path, f"{MINIMAL}listen: {{admin: {admin}}}\n{more}")
    assert settings.is_admin_api_open is is_open
    # A worker, which has no listener, remembers decisions for the one that has.
    assert settings.for_worker().is_admin_api_open is is_open


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "listen: {admin: 0.0.0.0:9003}\nadmin: {api: true}",
            "admin.api: other machines can reach 0.0.0.0:9003, and nothing says who may use the API",
        ),
        (
            "listen: {admin: 0.0.0.0:9003}\nadmin: {api: true, tls: {cert: c, key: k}}",
            "admin.api: other machines can reach 0.0.0.0:9003",
        ),
        ("admin: {api: true}", "admin.api: there is no admin listener; set listen.admin"),
        ("admin: {client_sans: [a]}", "admin.client_sans: asks for client certificates"),
        ("admin: {allowed_hosts: ['a:1']}", "admin.allowed_hosts[0]: must be a host's name"),
        ("admin: {allowed_hosts: [.a]}", "admin.allowed_hosts[0]: must be a whole name"),
    ],
)
def test_an_admin_api_that_anybody_could_use_is_refused(
    text: str, expected: str, tmp_path: Path
) -> None:
    (problem,) = problems_of(tmp_path, MINIMAL + text)
    assert expected in problem
