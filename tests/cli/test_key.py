"""``extauthz key``: keys that are unique, and hashes that the service takes."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
import yaml

from extauthz.app.core import open_core
from extauthz.model.decision import Allow, Deny, Reason
from extauthz.settings.reading import read_settings
from tests.builders import a_request
from tests.cli.conftest import Run


def test_makes_a_key_and_its_hash(run: Run) -> None:
    done = run("key", "new")
    assert done.code == 0 and not done.err
    told = yaml.safe_load(done.out)
    assert list(told) == ["key", "sha256"]
    assert told["key"].startswith("xak_") and len(told["key"]) == 47
    assert told["sha256"] == hashlib.sha256(told["key"].encode()).hexdigest()


def test_no_two_keys_are_the_same(run: Run) -> None:
    assert len({run("key", "new").out for _ in range(20)}) == 20


@pytest.mark.parametrize("stdin", ["my-key\n", "my-key", "  my-key \r\n", "my-key\nanother\n"])
def test_hashes_the_first_line_of_standard_input(stdin: str, run_program: Run) -> None:
    done = run_program("key", "hash", stdin=stdin)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"sha256: {hashlib.sha256(b'my-key').hexdigest()}\n"


def test_hashes_under_a_pepper(folder: Path, run_program: Run) -> None:
    (folder / "pepper").write_text("pepper\n")
    done = run_program("key", "hash", "--pepper-file", "pepper", stdin="my-key")
    assert done.out == f"hmac_sha256: {hmac.digest(b'pepper', b'my-key', 'sha256').hex()}\n"


@pytest.mark.parametrize(
    ("stdin", "message"),
    [(b"", "no key came on"), (b"\n", "no key came on"), (b"\xff\n", "is not")],
)
def test_says_that_there_is_no_key(stdin: bytes, message: str, run_program: Run) -> None:
    done = run_program("key", "hash", stdin=stdin)
    assert done.code == 1 and not done.out
    assert message in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("pepper", [None, "a pepper", "pépper"])
async def test_a_new_key_is_taken_by_the_service(
    pepper: str | None, folder: Path, run: Run
) -> None:
    options: tuple[str, ...] = ()
    settings = "catalog: {files: [consumers.yaml]}\n"
    if pepper is not None:
        (folder / "pepper").write_text(f"{pepper}\n")
        options = ("--pepper-file", "pepper")
        settings += "credentials: {api_key_pepper_file: pepper}\n"
    key, digest = run("key", "new", *options).out.splitlines()
    (folder / "extauthz.yaml").write_text(settings)
    (folder / "consumers.yaml").write_text(
        "apis: [{name: A, version: v1, context: /a, security: [api_key], "
        "resources: [{methods: [GET], path: /*}]}]\n"
        f"applications: [{{name: mobile, api_keys: [{{{digest}}}]}}]\n"
        "subscriptions: [{application: mobile, api: A, version: v1}]\n"
    )
    async with open_core(read_settings(folder / "extauthz.yaml", {})) as core:
        good = a_request("/a/v1/x", headers={"x-api-key": key.removeprefix("key: ")})
        bad = a_request("/a/v1/x", headers={"x-api-key": digest.partition(": ")[2]})
        allowed, denied = await core.pipeline.decide(good), await core.pipeline.decide(bad)
    assert isinstance(allowed, Allow)
    assert isinstance(denied, Deny) and denied.reason is Reason.INVALID_CREDENTIALS
