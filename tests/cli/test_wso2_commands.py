"""Commands that read the catalog, where it comes from an API Manager."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from extauthz.cli import main
from extauthz.demo.api_manager.server import ApiManager, run_api_manager

PASSWORD = "a-password"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ApiManager]:
    with run_api_manager(tmp_path, password=PASSWORD) as running:
        resources = [{"method": "GET", "path": "/x", "auth": "None"}]
        running.tables.publish_api("Open", "1", "/open/1", resources)
        yield running


@pytest.fixture
def settings_file(manager: ApiManager, tmp_path: Path) -> Path:
    (tmp_path / "password").write_text(PASSWORD)
    wso2 = {
        "url": manager.url,
        "username": "admin",
        "password_file": "password",
        "ca": manager.ca_file.name,
        "state_dir": "state",
    }
    file = tmp_path / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"wso2": wso2}}))
    return file


def test_validate_checks_what_it_can_and_reads_the_api_manager_when_it_is_told(
    manager: ApiManager, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(settings_file)]) == 0
    assert capsys.readouterr().out == (
        f"good: catalog.wso2, as far as is known; --pull reads {manager.url}\n"
    )
    assert manager.asked == []
    assert main(["validate", "--pull", str(settings_file)]) == 0
    assert capsys.readouterr().out.startswith("good: 1 API, 1 resource,")
    manager.stop()
    # From now on there is a last good copy.
    assert main(["validate", str(settings_file)]) == 0
    assert capsys.readouterr().out.startswith("good: 1 API, 1 resource,")


def test_explain_reads_the_last_good_copy_without_the_api_manager(
    manager: ApiManager, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--pull", str(settings_file)]) == 0
    manager.stop()
    url = "http://any.example/open/1/x"
    assert main(["explain", "--config", str(settings_file), "--url", url]) == 0
    assert capsys.readouterr().out.rstrip().endswith("ALLOW")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("password", None, "password does not exist; check the path"),
        ("password", "", "is empty"),
        ("api-manager.pem", "no certificate", "holds no certificates in PEM"),
    ],
)
def test_validate_says_what_is_wrong_with_its_files(
    settings_file: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    told: str,
) -> None:
    file = settings_file.parent / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert main(["validate", str(settings_file)]) == 1
    assert told in capsys.readouterr().err
