"""The workflow of a public forge runs `.ci/run` and nothing else, and may do no more than read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


def _read_workflow() -> dict[str, Any]:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    # Strings only: YAML 1.1 takes the key `on` for a boolean.
    workflow: dict[str, Any] = yaml.load(text, yaml.BaseLoader)
    return workflow


def test_the_workflow_runs_what_every_checkout_runs() -> None:
    (job,) = _read_workflow()["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert "run" in job["steps"][-1]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_workflow_runs_for_main_and_for_what_is_proposed() -> None:
    assert _read_workflow()["on"] == {"push": {"branches": ["main"]}, "pull_request": ""}


def test_the_workflow_may_only_read_and_ends() -> None:
    workflow = _read_workflow()
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    assert 25 < int(job["timeout-minutes"]) <= 90
    assert "secrets" not in str(workflow)


def test_the_workflow_uses_two_actions_by_their_major_version() -> None:
    (job,) = _read_workflow()["jobs"].values()
    used = {step["uses"]: step["with"] for step in job["steps"] if "uses" in step}
    assert [name.partition("@")[0] for name in used] == ["actions/checkout", "actions/setup-python"]
    assert all(re.fullmatch(r"[\w/-]+@v\d+", name) for name in used)
    checkout, python = used.values()
    assert checkout == {"persist-credentials": "false"}
    assert python["python-version"] == "3.11"
    assert (ROOT / python["cache-dependency-path"]).is_file()
