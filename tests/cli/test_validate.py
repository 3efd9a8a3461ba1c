"""``extauthz validate``: every problem on a line of its own, in settings and catalogs alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.cli.conftest import Run
from tests.keys import ec_key

GOOD = "good: 4 APIs, 7 resources, 4 applications, 2 subscriptions, 2 tiers, 1 issuer\n"


@pytest.mark.parametrize(
    "paths",
    [(), ("extauthz.yaml",), ("catalog",), ("catalog/all.yaml",), ("extauthz.yaml", "catalog/")],
    ids=" ".join,
)
def test_says_what_is_in_a_good_catalog(paths: tuple[str, ...], run: Run) -> None:
    done = run("validate", *paths)
    assert (done.code, done.err) == (0, "")
    assert done.out == GOOD


def test_several_files_are_one_catalog(folder: Path, run: Run) -> None:
    (folder / "one.yaml").write_text("applications: [{name: a}]\n")
    (folder / "two.yaml").write_text(
        "apis: [{name: A, version: v1, context: /a, resources: [{methods: [GET], path: /}]}]\n"
        "subscriptions: [{application: a, api: A, version: v1}]\n"
    )
    done = run("validate", "one.yaml", "two.yaml")
    assert done.code == 0 and done.out.startswith("good: 1 API, 1 resource, 1 application,")
    alone = run("validate", "two.yaml")
    assert alone.code == 1 and "two.yaml:2: subscriptions[0].application: " in alone.err


def test_lists_every_problem_of_settings_and_catalog(folder: Path, run: Run) -> None:
    (folder / "pepper").write_text("")
    (folder / "jwt.pem").write_bytes(
        ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (folder / "extauthz.yaml").write_text(
        "catalog: {files: [bad.yaml]}\n"
        "server: {tls: {cert: no.crt, key: no.key}}\n"
        "credentials: {api_key_pepper_file: pepper}\n"
        "responses: {backend_jwt: {private_key_file: jwt.pem}}\n"
    )
    (folder / "bad.yaml").write_text("apis:\n  - {name: A}\nnonsense: 1\n")
    done = run("validate")
    assert done.code == 1 and not done.out
    lines = [line.replace(f"{folder}/", "") for line in done.err.splitlines()]
    assert lines[0] == (
        "extauthz.yaml:3: credentials.api_key_pepper_file: pepper is empty; write the secret into "
        "it"
    )
    assert lines[1].startswith(
        "extauthz.yaml:4: responses.backend_jwt.private_key_file: jwt.pem does not fit RS256"
    )
    assert lines[2:4] == [
        "extauthz.yaml:2: server.tls.cert: no.crt cannot be read: No such file or directory",
        "extauthz.yaml:2: server.tls.key: no.key cannot be read: No such file or directory",
    ]
    assert lines[4].startswith("bad.yaml:2: apis[0]: version is missing")
    assert any(line.startswith("bad.yaml:3: nonsense: unknown key") for line in lines)
    assert lines[-1] == f"{len(lines) - 1} problems"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.yaml", "missing.yaml: does not exist"),
        ("broken.yaml", ": is not YAML: "),
        ("binary.yaml", "binary.yaml:1: is not UTF-8 text"),
        ("settings.yaml", "settings.yaml:1: catalog is missing; add it"),
        ("api.yaml", "api.yaml:1: is an OpenAPI document; name the catalog that refers to it"),
    ],
)
def test_one_problem_is_one_line(path: str, message: str, folder: Path, run_program: Run) -> None:
    (folder / "broken.yaml").write_text("a: [")
    (folder / "binary.yaml").write_bytes(b"\xff")
    (folder / "settings.yaml").write_text("listen: {}")
    (folder / "api.yaml").write_text("openapi: 3.1.0\npaths: {}\n")
    done = run_program("validate", path)
    assert done.code == 1 and not done.out
    problem, count = done.err.splitlines()
    assert message in problem and count == "1 problem"


def test_a_problem_in_one_file_does_not_hide_those_in_another(folder: Path, run: Run) -> None:
    (folder / "broken.yaml").write_text("a: [")
    (folder / "bad.yaml").write_text("nonsense: 1\n")
    done = run("validate", "broken.yaml", "bad.yaml", "gone.yaml")
    assert done.code == 1
    assert [line.partition(":")[0].rpartition("/")[2] for line in done.err.splitlines()[:-1]] == [
        "broken.yaml",
        "bad.yaml",
        "gone.yaml",
    ]


def test_the_environment_counts_as_it_does_for_the_service(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTAUTHZ_LOG__LEVEL", "loud")
    done = run("validate")
    assert done.code == 1
    assert done.err.startswith("EXTAUTHZ_LOG__LEVEL: log.level: must be one of debug,")


def test_says_what_is_unsafe_in_an_envoy_configuration(run: Run, tmp_path: Path) -> None:
    good = run("envoy-config").out
    file = tmp_path / "envoy.yaml"
    file.write_text(good)
    done = run("validate", "--envoy", str(file))
    assert (done.code, done.err) == (0, "")
    assert done.out == f"good: {file}, as far as is known\n"
    file.write_text(f"# two documents\n---\n{good.replace('allow: false', 'allow: true')}")
    done = run("validate", "--envoy", str(file))
    assert done.code == 1
    (problem, count) = done.err.splitlines()
    line = next(
        n for n, text in enumerate(file.read_text().splitlines(), 1) if "mode_allow" in text
    )
    assert problem.startswith(f"{file}:{line}: static_resources.listeners[0]")
    assert "failure_mode_allow: lets every request pass" in problem
    assert count == "1 problem"


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: b\n", "nothing in it asks"), ("a: [\n", "2: "), ("", "nothing in it asks")],
)
def test_an_envoy_configuration_that_asks_nobody_is_a_problem(
    run: Run, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(text)
    done = run("validate", "--envoy", str(file))
    assert done.code == 1 and words in done.err


def test_names_that_fit_nothing_are_warned_of_with_their_lines(folder: Path, run: Run) -> None:
    (folder / "catalog" / "deny.yaml").write_text(
        "deny:\n"
        "  - {application: Mobile}\n"
        "  - {application: nobody-at-all, invert: true}\n"
        "  - {application: mobile}\n"
    )
    (folder / "blocks.yaml").write_text(
        "deny:\n  - {api: pets}\nrevoked:\n  - {jti: t, issuer: https://nowhere.example/}\n"
    )
    (folder / "extauthz.yaml").write_text(
        "catalog: {files: [catalog/]}\n"
        "emergency: {files: [blocks.yaml]}\n"
        "mixer:\n  quota_tiers:\n    rq: gold\n"
    )
    done = run("validate")
    assert done.code == 0 and done.out.startswith("good: ")
    lines = [line.replace(f"{folder}/", "") for line in done.err.splitlines()]
    assert lines[:2] == [
        "warning: catalog/deny.yaml:2: deny[0].application: no application has this name, so the "
        "rule refuses nobody; did you mean 'mobile'?",
        "warning: catalog/deny.yaml:3: deny[1].application: no application has this name, so the "
        "rule refuses everybody; known are: far, late, mobile, rogue",
    ]
    assert lines[2].startswith(
        "warning: blocks.yaml:2: deny[0]: API 'pets' fits nothing in the catalog; did you mean "
        "'Pets'?"
    )
    assert lines[3].startswith("warning: blocks.yaml:4: revoked[0]: issuer")
    assert lines[4:] == [
        "warning: extauthz.yaml:5: mixer.quota_tiers.rq: there is no tier 'gold'; did you mean "
        "'Gold'?"
    ]


def test_tokens_may_name_applications_that_the_catalog_does_not(folder: Path, run: Run) -> None:
    (folder / "one.yaml").write_text(
        "issuers:\n"
        "  - {issuer: https://idp.example/, audiences: [a], jwks_file: jwks.json, "
        "subscriptions_from_token: true}\n"
        "applications: [{name: mobile}]\n"
        "deny: [{application: only-in-tokens}, {application: Mobile}]\n"
    )
    done = run("validate", "one.yaml")
    assert done.code == 0
    assert "deny[0]" not in done.err and "deny[1].application: no application" in done.err


def test_a_wrong_file_of_blocks_is_a_problem_with_its_line(folder: Path, run: Run) -> None:
    (folder / "blocks.yaml").write_text("deny:\n  - {user: a}\n  - {ip: 192.0.2.1/24}\n")
    (folder / "extauthz.yaml").write_text(
        "catalog: {files: [catalog/]}\nemergency: {files: [blocks.yaml, absent.yaml]}\n"
    )
    done = run("validate")
    assert done.code == 1
    assert "blocks.yaml:3: deny[1].ip: has bits set behind its prefix" in done.err
    assert done.err.endswith("\n1 problem\n")


def test_blocks_in_the_catalog_s_folder_are_refused(folder: Path, run: Run) -> None:
    for file in ("catalog/blocks.yaml", "./catalog/more/blocks.yaml", "catalog"):
        (folder / "extauthz.yaml").write_text(
            f"catalog: {{files: [catalog/]}}\nemergency: {{files: [{file}]}}\n"
        )
        done = run("validate")
        assert done.code == 1
        assert "extauthz.yaml:2: emergency.files[0]: lies in the catalog's folder" in done.err


NAMED_FILES = {
    "catalog.files[1]": "catalog:\n  files:\n    - catalog\n    - gone  # here\n",
    "credentials.api_key_pepper_file": "credentials:\n  api_key_pepper_file: gone  # here\n",
    "server.tls.client_ca": "server:\n  tls:\n    cert: good.crt\n    key: good.key\n"
    "    client_ca: gone  # here\n",
    "mixer.callers.token_file": "listen: {mixer: '127.0.0.1:1'}\n"
    "mixer: {callers: {token_file: gone}}  # here\n",
    "counters.password_file": "counters:\n  store: redis\n  url: redis://h\n"
    "  password_file: gone  # here\n",
    "emergency.redis.password_file": "emergency:\n  redis:\n    url: redis://h\n"
    "    password_file: gone  # here\n",
    "responses.backend_jwt.private_key_file": "responses:\n  backend_jwt:\n"
    "    private_key_file: gone  # here\n",
    "log.decisions.file": "log:\n  decisions: gone/decisions.jsonl  # here\n",
    "log.decisions.hash_key_file": "log:\n  decisions:\n    stdout: true\n"
    "    hash_key_file: gone  # here\n",
    "log.decisions.redis.password_file": "log:\n  decisions:\n    redis:\n"
    "      url: redis://h\n      password_file: gone  # here\n",
}


@pytest.mark.parametrize("key", NAMED_FILES)
def test_a_file_that_is_missing_is_told_where_it_is_named(key: str, folder: Path, run: Run) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "good.crt"))
    certificate.private_key_pem.write_to_path(str(folder / "good.key"))
    text = NAMED_FILES[key]
    if not key.startswith("catalog"):
        text = f"catalog: {{files: [catalog]}}\n{text}"
    (folder / "extauthz.yaml").write_text(text)
    (line,) = [number for number, row in enumerate(text.splitlines(), 1) if "# here" in row]
    done = run("validate")
    assert done.code == 1
    problem, count = done.err.splitlines()
    assert problem.startswith(f"extauthz.yaml:{line}: {key}: {folder}/gone"), problem
    assert count == "1 problem"


def test_a_file_that_the_environment_names_is_told_by_its_variable(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTAUTHZ_CATALOG__FILES", "[catalog, gone]")
    done = run("validate")
    assert done.err.startswith(
        f"EXTAUTHZ_CATALOG__FILES: catalog.files[1]: {folder}/gone does not exist"
    )


def test_what_does_not_start_says_it_as_validate_does(folder: Path, run_program: Run) -> None:
    (folder / "extauthz.yaml").write_text("catalog:\n  files: [gone]\n")
    expected = f"extauthz.yaml:2: catalog.files[0]: {folder}/gone does not exist; check the path"
    for command in (("validate",), ("serve",), ("explain", "--url", "/a")):
        assert run_program(*command).err.splitlines()[0] == expected, command


def test_an_empty_folder_is_told_where_it_is_named(folder: Path, run: Run) -> None:
    (folder / "empty").mkdir()
    (folder / "extauthz.yaml").write_text("catalog:\n  files: [empty]\n")
    done = run("validate")
    assert done.err.startswith(
        f"extauthz.yaml:2: catalog.files[0]: {folder}/empty holds no catalog"
    )


def test_a_file_of_blocks_can_be_checked_by_itself(folder: Path, run: Run) -> None:
    (folder / "blocks.yaml").write_text("deny: [{user: a, reason: b}]\nrevoked: [{jti: t}]\n")
    done = run("validate", "--blocks", "blocks.yaml")
    assert (done.code, done.out, done.err) == (0, "good: blocks.yaml\n", "")
    (folder / "blocks.yaml").write_text("deny: [{application: Mobile}]\n")
    done = run("validate", "--blocks", "blocks.yaml", "catalog/")
    assert done.code == 0 and "did you mean 'mobile'?" in done.err
    (folder / "blocks.yaml").write_text("deny: [{usr: a}]\n")
    done = run("validate", "--blocks", "blocks.yaml")
    assert done.code == 1 and "blocks.yaml:1: deny[0].usr: unknown key 'usr'" in done.err


def test_what_is_left_out_of_a_document_is_warned_of(folder: Path, run_program: Run) -> None:
    (folder / "api.yaml").write_text(
        "openapi: 3.0.3\n"
        "components: {securitySchemes: {b: {type: http, scheme: basic}, t: {type: oauth2}}}\n"
        "security:\n  - b: []\n  - t: []\n"
        "paths: {/a: {get: {}}}\n"
    )
    (folder / "one.yaml").write_text("apis: [{name: A, version: v1, openapi: api.yaml}]\n")
    done = run_program("validate", "one.yaml")
    assert done.code == 0 and done.out.startswith("good: 1 API, 1 resource")
    (warning,) = done.err.splitlines()
    assert warning.startswith("warning: api.yaml:4: security[0]: security scheme 'b': http basic")
