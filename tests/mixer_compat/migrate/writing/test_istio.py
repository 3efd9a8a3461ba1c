"""The policies that make Envoy ask, and the command itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.cli import main
from tests.mixer_compat.migrate.conftest import FIXTURES, Migrate, Migrated

POLICIES = "istio/authorization-policies.yaml"


def policies(migrated: Migrated) -> dict[str, Any]:
    return {
        f"{one['metadata']['namespace']}/{one['metadata']['name']}": one["spec"]
        for one in yaml.safe_load_all(migrated.text(POLICIES))
    }


def test_the_provider_asks_the_service_and_fails_closed(migrate: Migrate) -> None:
    (mesh,) = yaml.safe_load_all(migrate(FIXTURES / "wso2.yaml").text("istio/mesh-config.yaml"))
    (provider,) = mesh["extensionProviders"]
    assert provider["envoyExtAuthzGrpc"] == {
        "service": "extauthz.extauthz.svc.cluster.local", "port": 9001, "timeout": "0.5s",
        "failOpen": False,
    }  # fmt: skip


CUSTOM = {"action": "CUSTOM", "provider": {"name": "extauthz"}, "rules": [{}]}


@pytest.mark.parametrize(
    ("vendor", "written"),
    [
        ("wso2", {"default/extauthz": CUSTOM}),
        ("apigee", {"shop/extauthz": CUSTOM}),
        (
            "threescale",
            {
                "istio-system/extauthz-threescale": {
                    **CUSTOM,
                    "selector": {
                        "matchLabels": {"service-mesh.3scale.net/credentials": "threescale"}
                    },
                }
            },
        ),
    ],
)
def test_envoy_asks_about_all_that_was_guarded(
    vendor: str, written: dict[str, Any], migrate: Migrate
) -> None:
    assert policies(migrate(FIXTURES / f"{vendor}.yaml")) == written


def test_a_workload_answers_only_to_the_hosts_of_its_api(migrate: Migrate) -> None:
    written = policies(migrate(FIXTURES / "quota.yaml"))
    assert list(written) == [
        "default/extauthz", "default/extauthz-hosts-productpage", "default/extauthz-hosts-reviews",
    ]  # fmt: skip
    pin = written["default/extauthz-hosts-reviews"]
    assert pin["action"] == "DENY"
    assert pin["selector"] == {"matchLabels": {"app": "reviews"}}
    (rule,) = pin["rules"]
    hosts = rule["to"][0]["operation"]["notHosts"]
    assert hosts[:4] == ["reviews", "reviews:*", "reviews.default", "reviews.default:*"]
    assert not [host for host in hosts if "productpage" in host]


def test_a_service_of_no_known_namespace_is_asked_about_in_the_whole_mesh(migrate: Migrate) -> None:
    text = (FIXTURES / "wso2.yaml").read_text()
    match = 'destination.namespace == "default" && '
    assert match in text
    migrated = migrate(text.split("---\napiVersion: config.istio.io/v1alpha2\nkind: HTTPAPI")[0]
                       .replace(match, ""))  # fmt: skip
    assert policies(migrated) == {"istio-system/extauthz": CUSTOM}
    assert any("run extauthz without a sidecar" in line for line in migrated.told("check"))
    assert any("in the whole mesh" in line for line in migrated.told("stricter"))


def test_istio_before_1_9_gets_a_filter(migrate: Migrate) -> None:
    migrated = migrate(FIXTURES / "threescale.yaml")
    (made,) = yaml.safe_load_all(migrated.text("istio/envoy-filters-before-1.9.yaml"))
    assert made["kind"] == "EnvoyFilter"
    assert made["spec"]["workloadSelector"]["labels"] == {
        "service-mesh.3scale.net/credentials": "threescale"
    }
    (patch,) = made["spec"]["configPatches"]
    config = patch["patch"]["value"]["typed_config"]
    assert config["failure_mode_allow"] is False
    assert config["transport_api_version"] == "V3"


# The command


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(*arguments: str | Path) -> int:
    return main(["migrate", *map(str, arguments)])


def test_prints_what_is_lost_and_where_the_report_is(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(FIXTURES / "threescale.yaml", "--out", out) == 1
    said = capsys.readouterr()
    assert not said.err
    first, *_, summary, last = said.out.splitlines()
    assert first.startswith(
        f"not carried over: {FIXTURES}/threescale.yaml:11: handler istio-system/"
    )
    assert summary == (
        "3 objects of Mixer read; 1 not carried over, 1 to check, 3 not needed without Mixer."
    )
    assert last == f"Read {out}/REPORT.md before you use what was written."
    report = (out / "REPORT.md").read_text()
    assert (
        "threescale.yaml:11: handler istio-system/threescale: spec.params.service_id: the" in report
    )


def test_gives_0_when_all_is_carried_over(out: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: config.istio.io/v1alpha2\nkind: handler\nmetadata: {name: h, namespace: n}\n"
        "spec: {compiledAdapter: denier, params: {status: {code: 7}}}\n"
        "---\n"
        "apiVersion: config.istio.io/v1alpha2\nkind: instance\n"
        "metadata: {name: i, namespace: n}\nspec: {compiledTemplate: checknothing}\n"
        "---\n"
        "apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {name: r, namespace: n}\n"
        'spec: {match: source.ip == ip("192.0.2.1"), actions: [{handler: h, instances: [i]}]}\n'
    )
    assert run(tmp_path / "a.yaml", "--out", out) == 0


def test_gives_1_when_there_is_nothing_to_carry(out: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: s}\n")
    assert run(tmp_path / "a.yaml", "--out", out) == 1


def test_a_broken_file_does_not_hide_the_others(out: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("kind: {a\n---\n")
    assert run(tmp_path / "broken.yaml", FIXTURES / "apigee.yaml", "--out", out) == 1
    assert "broken.yaml:" in (out / "REPORT.md").read_text()
    assert "name: shop" in (out / "catalog" / "catalog.yaml").read_text()


def test_writes_over_nothing_unless_it_is_told_to(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "catalog").mkdir(parents=True)
    (out / "catalog" / "issuers.yaml").write_text("issuers: []\n")
    (out / "extauthz.yaml").write_text("old")
    assert run(FIXTURES / "apigee.yaml", "--out", out) == 2
    assert "is not empty" in capsys.readouterr().err
    assert (out / "extauthz.yaml").read_text() == "old"
    assert run(FIXTURES / "apigee.yaml", "--out", out, "--force") == 1
    assert (out / "extauthz.yaml").read_text() != "old"
    assert (out / "catalog" / "issuers.yaml").read_text() == "issuers: []\n"
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".out")]


def test_what_an_earlier_run_wrote_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text((FIXTURES / "apigee.yaml").read_text())
    assert run(tmp_path, "--out", tmp_path / "out") == 1
    first = capsys.readouterr().out
    assert run(tmp_path, "--out", tmp_path / "out", "--force") == 1
    assert capsys.readouterr().out == first


def test_an_empty_folder_is_written_into(out: Path) -> None:
    out.mkdir()
    assert run(FIXTURES / "apigee.yaml", "--out", out) == 1
    assert (out / "REPORT.md").exists()


@pytest.mark.parametrize("arguments", [("none.yaml", "--out", "OUT"), ("FILE", "--out", "FILE")])
def test_wrong_usage_is_told_without_writing(
    arguments: tuple[str, ...], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"OUT": str(out), "FILE": str(FIXTURES / "apigee.yaml")}
    assert run(*(places.get(word, word) for word in arguments)) == 2
    assert capsys.readouterr().err.startswith("extauthz: ")
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(FIXTURES / "apigee.yaml", "--out", tmp_path / "file" / "out") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_json_report_says_what_the_other_says(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(FIXTURES, "--out", out, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["complete"] is False
    assert sorted(report["written"]) == sorted(
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()
    )
    text = (out / "REPORT.md").read_text()
    for finding in report["findings"]:
        assert finding["field"] in text.replace("\\", "")
        assert finding["line"] > 0 or not finding["file"].endswith("fixtures")


def test_a_name_that_a_catalog_does_not_take_is_told(migrate_text: Any) -> None:
    told = migrate_text(
        "apiVersion: config.istio.io/v1alpha2\nkind: HTTPAPISpec\nmetadata: {name: a}\nspec:\n"
        "  attributes: {attributes: {api.service: {stringValue: ' '}, "
        'api.version: {stringValue: "a\\tb"}}}\n'
        "---\n"
        "apiVersion: config.istio.io/v1alpha2\nkind: HTTPAPISpecBinding\nmetadata: {name: a}\n"
        "spec: {services: [{name: s}], apiSpecs: [{name: a}]}\n"
    )
    assert any("catalog.yaml:" in line and "cannot be loaded before" in line for line in told)


@pytest.fixture
def migrate_text(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run_text(text: str) -> list[str]:
        (tmp_path / "a.yaml").write_text(text)
        assert run(tmp_path / "a.yaml", "--out", out) == 1
        return capsys.readouterr().out.splitlines()

    return run_text
