"""A folder with settings and a catalog, and two ways to run the command in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz.cli import main
from extauthz.cli.key import write_digest
from tests.builders import API_KEY
from tests.commands import run_command
from tests.keys import ISSUER, a_jwks

SETTINGS = "catalog: {files: [catalog/]}\n"
CATALOG = f"""\
apis:
  - name: HttpbinAPI
    version: 1.0.0
    context: /httpbin/1.0.0
    security: [jwt, api_key]
    resources:
      - {{methods: [GET], path: /ip, scopes: [scope_ip]}}
      - {{methods: [GET], path: /admin, scopes: [scope_a, scope_b], scopes_match: all}}
      - {{methods: [GET], path: /once, tier: Once}}
      - {{methods: [GET], path: /health, security: [none]}}
  - {{name: Pets, version: v1, context: /pets, resources: [{{methods: [GET], path: /*}}]}}
  - {{name: Old, version: v1, context: /old, state: BLOCKED, resources: [{{methods: [GET], path: /*}}]}}
  - {{name: New, version: v1, context: /new, state: CREATED, resources: [{{methods: [GET], path: /*}}]}}
applications:
  - name: mobile
    owner: alice
    api_keys: [{{{write_digest(API_KEY)}}}]
    consumer_keys: [{{id: abc123, issuer: {ISSUER}}}]
  - name: rogue
    api_keys: [{{{write_digest("rogue-key")}}}]
  - name: late
    api_keys: [{{{write_digest("late-key")}}}]
  - name: far
    api_keys: [{{{write_digest("far-key")}, networks: [203.0.113.0/24]}}]
subscriptions:
  - {{application: mobile, api: HttpbinAPI, version: 1.0.0, tier: Gold}}
  - {{application: late, api: HttpbinAPI, version: 1.0.0, state: ON_HOLD}}
tiers:
  Gold: {{limits: [{{requests: 5000, per: 1m}}]}}
  Once: {{limits: [{{requests: 1, per: 1h, algorithm: fixed_window}}]}}
issuers:
  - {{issuer: {ISSUER}, audiences: [httpbin], jwks_file: ../jwks.json}}
deny:
  - {{application: rogue}}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, which is also the one that commands run in."""
    (tmp_path / "extauthz.yaml").write_text(SETTINGS)
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "all.yaml").write_text(CATALOG)
    (tmp_path / "jwks.json").write_text(a_jwks())
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("EXTAUTHZ_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``extauthz`` in this process, in the folder."""

    def run_in_process(*arguments: str) -> Done:
        assert Path.cwd() == folder
        capsys.readouterr()
        code: object
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run_in_process


@pytest.fixture
def run_program(folder: Path) -> Run:
    """Runs ``extauthz`` in a process of its own, in the folder."""

    def run_apart(*arguments: str, stdin: str | bytes = "") -> Done:
        done = run_command(
            *arguments,
            folder=folder,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run_apart
