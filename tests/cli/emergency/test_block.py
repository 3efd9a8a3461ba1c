"""``extauthz block``, ``unblock``, ``revoke`` and ``blocks``, as somebody on call types them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.app.core import Core, open_core
from extauthz.model.decision import Deny
from extauthz.settings.reading import read_settings
from tests.builders import API_KEY, a_request
from tests.cli.conftest import SETTINGS, Done, Run
from tests.keys import a_jwt
from tests.redis_server import find_shared, stop_shared

WITH_FILE = f"{SETTINGS}emergency: {{files: [blocks.yaml]}}\n"


@pytest.fixture(scope="module", autouse=True)
def _redis_servers() -> Iterator[None]:
    yield
    stop_shared()


@pytest.fixture(params=["file", "redis", "own redis"])
def place(request: pytest.FixtureRequest, folder: Path) -> str:
    """Where orders go; the settings say so."""
    text = WITH_FILE
    if request.param == "redis":
        url = find_shared("redis").url
        text = f"{SETTINGS}counters: {{store: redis, url: '{url}', timeout: 20s}}\n"
    if request.param == "own redis":
        url = find_shared("redis, cluster").url
        text = f"{SETTINGS}emergency: {{redis: {{url: '{url}'}}}}\n"
    (folder / "extauthz.yaml").write_text(text)
    return str(request.param)


async def reasons_of(*requests: Any) -> list[str]:
    """What a service that starts now says to each."""
    async with open_core(read_settings(Path("extauthz.yaml"), {})) as core:
        return [await reason_of(core, request) for request in requests]


async def reason_of(core: Core, request: Any) -> str:
    decision = await core.pipeline.decide(request)
    return decision.reason.value if isinstance(decision, Deny) else "allowed"


def a_valid_token() -> str:
    """Of consumer key abc123 and user carol, by the clock of this machine."""
    now_s = int(time.time())
    return a_jwt(
        jti="t-1",
        azp="abc123",
        sub="carol",
        scope="scope_ip",
        iat=now_s,
        exp=now_s + 3600,
    )


def by_key(client: str = "192.0.2.1", path: str = "/httpbin/1.0.0/ip") -> Any:
    return a_request(path, headers={"x-api-key": API_KEY}, client=client)


@pytest.fixture
def run_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with a text on standard input."""

    def run_with_text(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return run(*arguments)

    return run_with_text


def ask(*requests: Any) -> list[str]:

    return asyncio.run(reasons_of(*requests))


@pytest.mark.parametrize(
    ("selectors", "fits"),
    [
        (["--application", "mobile"], "application 'mobile' with 1 API key and 1 consumer key"),
        (["--user", "alice"], ""),
        (["--ip", "192.0.2.0/24"], "256 addresses"),
        (["--ip", "192.0.2.1"], "1 address"),
        (["--ip", "::ffff:192.0.2.1"], "1 address"),
        (["--api", "HttpbinAPI"], "API 'HttpbinAPI', 1 version"),
        (["--api", "HttpbinAPI", "--version", "1.0.0"], "API 'HttpbinAPI', 1 version"),
        (["--api", "HttpbinAPI", "--application", "mobile", "--ip", "192.0.2.1"], "mobile"),
    ],
)
def test_what_is_blocked_is_refused_until_it_is_unblocked(
    selectors: list[str], fits: str, run: Run, folder: Path
) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    assert ask(by_key()) == ["allowed"]
    done = run("block", *selectors, "--reason", "stolen", "--by", "ops")
    assert (done.code, done.err) == (0, "")
    assert fits in done.out and "(stolen)" in done.out
    assert ask(by_key()) == ["blocked"]
    listed = run("blocks")
    assert listed.code == 0 and "(stolen), by ops, from" in listed.out
    done = run("unblock", *selectors)
    assert (done.code, done.err) == (0, "") and "is taken back" in done.out
    assert ask(by_key()) == ["allowed"]
    assert run("blocks").out == "nothing is blocked or revoked beside the catalog\n"


def test_a_block_is_written_wherever_orders_are_kept(place: str, run: Run) -> None:
    done = run("block", "--application", "mobile", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["written_to"] == (
        "redis" if "redis" in place else str(Path("blocks.yaml").absolute())
    )
    assert ask(by_key()) == ["blocked"]
    entries = json.loads(run("blocks", "--json").out)["entries"]
    assert [(it["id"], it["kind"], it["application"]) for it in entries] == [
        (told["id"], "deny", "mobile")
    ]
    done = run("unblock", told["id"], "--json")
    assert json.loads(done.out) == {
        "taken_back": [{"id": told["id"], "taken_from": told["written_to"]}]
    }
    assert ask(by_key()) == ["allowed"]


def test_a_mistake_in_the_catalog_keeps_nobody_from_blocking(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    (folder / "catalog" / "typo.yaml").write_text("aplications: []\n")
    done = run("block", "--application", "Mobile")
    assert done.code == 0
    assert "names were not checked: the catalog cannot be read" in done.err
    assert "typo.yaml:1: aplications: unknown key" in done.err
    assert (
        yaml.safe_load((folder / "blocks.yaml").read_text())["deny"][0]["application"] == "Mobile"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--application", "Mobile"], "application 'Mobile' fits nothing in the catalog; did you mean 'mobile'?"),
        (["--application", "nobody"], "application 'nobody' fits nothing"),
        (["--api", "httpbinapi"], "did you mean 'HttpbinAPI'?"),
        (["--api", "Pets", "--version", "1"], "version of API 'Pets' '1' fits nothing in the catalog"),
        (["--consumer-key", "ABC123"], "consumer key 'ABC123' fits nothing in the catalog; did you mean 'abc123'?"),
        (["--user", "Alice"], "did you mean 'alice'?"),
        (["--ip", "0.0.0.0/0"], "is every client"),
        (["--ip", "::/0"], "is every client"),
        (["--ip", "::ffff:0:0/96"], "is every client"),
    ],
)  # fmt: skip
def test_what_fits_nothing_or_everybody_is_written_only_with_force(
    arguments: list[str], told: str, run: Run, folder: Path
) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    done = run("block", *arguments)
    assert done.code == 1 and not done.out
    assert told in done.err and "force" in done.err
    assert not (folder / "blocks.yaml").exists()
    done = run("block", *arguments, "--force")
    assert done.code == 0
    assert len(json.loads(run("blocks", "--json").out)["entries"]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "has no condition and would refuse everything"),
        (["--version", "v1"], "version is of no API"),
        (["--ip", "203.0.113.7/24"], "--ip: has bits set behind its prefix; write 203.0.113.0/24"),
        (["--ip", "here"], "--ip: is neither an address nor a network"),
        (["--user", "a\x1b[2J"], "no control characters"),
        (["--user", "a", "--for", "soon"], "--for must be a duration"),
        (["--user", "a" * 2000], "--user: "),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(
    arguments: list[str], told: str, run: Run, folder: Path
) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    done = run("block", *arguments)
    assert done.code == 2 and not done.out
    assert told in done.err and done.err.count("\n") == 1 and "\x1b" not in done.err


def test_a_block_can_end_by_itself(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    before = datetime.now(UTC).replace(microsecond=0)
    assert run("block", "--application", "mobile", "--for", "1h").code == 0
    (entry,) = json.loads(run("blocks", "--json").out)["entries"]
    until = datetime.fromisoformat(entry["until"])
    assert before + timedelta(hours=1) <= until <= datetime.now(UTC) + timedelta(hours=1)
    assert entry["is_over"] is False
    # What is over is still listed, and refuses nobody.
    past = {"deny": [{"application": "mobile", "until": "2020-01-01T00:00:00Z"}]}
    (folder / "blocks.yaml").write_text(yaml.safe_dump(past))
    assert "[is over]" in run("blocks").out
    assert ask(by_key()) == ["allowed"]


def test_without_a_place_it_says_what_to_set(run: Run) -> None:
    for command in (["block", "--user", "a"], ["blocks"], ["unblock", "--all"]):
        done = run(*command)
        assert done.code == 3 and "set emergency.redis or emergency.files" in done.err


def test_a_redis_that_is_away_is_told_and_a_file_can_be_written(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(
        f"{WITH_FILE}counters: {{store: redis, url: 'redis://127.0.0.1:1'}}\n"
    )
    done = run("block", "--application", "mobile")
    assert done.code == 3 and "Redis at 127.0.0.1:1 did not answer" in done.err
    done = run("block", "--application", "mobile", "--file")
    assert done.code == 0 and "blocks.yaml" in done.out
    listed = run("blocks")
    assert (
        listed.code == 1 and "application mobile" in listed.out and "did not answer" in listed.err
    )


def test_a_file_that_is_wrong_elsewhere_still_takes_a_block(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    (folder / "blocks.yaml").write_text("deny:\n- {aplication: rogue}\n- {user: mallory}\n")
    assert run("block", "--application", "mobile").code == 0
    written = yaml.safe_load((folder / "blocks.yaml").read_text())["deny"]
    assert written[:2] == [{"aplication": "rogue"}, {"user": "mallory"}]
    assert written[2]["application"] == "mobile"
    listed = run("blocks")
    assert listed.code == 1 and "deny[0].aplication: unknown key" in listed.err
    # Taking back is written, and does not take effect while the file is wrong.
    done = run("unblock", "--user", "mallory")
    assert done.code == 1 and "takes nothing back until that is mended" in done.err


def test_a_file_that_cannot_be_parsed_is_left_alone(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    (folder / "blocks.yaml").write_text("deny: [\n")
    done = run("block", "--application", "mobile")
    assert done.code == 3 and "blocks.yaml:2: is not YAML" in done.err
    assert (folder / "blocks.yaml").read_text() == "deny: [\n"


def test_unblocking_what_is_not_blocked_says_so(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    run("block", "--application", "mobile")
    for arguments in (["block-0123456789ab"], ["--application", "Mobile"]):
        done = run("unblock", *arguments)
        assert done.code == 1 and "nothing of the kind is blocked" in done.err
    for arguments in ([], ["--all", "some-id"], ["x", "--user", "a"]):
        assert run("unblock", *arguments).code == 2
    assert run("unblock", "--all").code == 0
    assert ask(by_key()) == ["allowed"]


def test_an_api_key_is_taken_back_by_itself_or_by_its_hash(run_with: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    for arguments, stdin in (
        (["--api-key-file", "-"], API_KEY),
        (["--api-key-hash", digest.upper()], ""),
    ):
        done = run_with("revoke", *arguments, stdin=stdin)
        assert (done.code, done.err) == (0, "")
        assert "an API key of application 'mobile'" in done.out and API_KEY not in done.out
        assert ask(by_key()) == ["token_revoked"]
        assert API_KEY not in (folder / "blocks.yaml").read_text()
        run_with("unblock", "--all")
        assert ask(by_key()) == ["allowed"]
    done = run_with("revoke", "--api-key-file", "-", stdin="another key")
    assert done.code == 1 and "no API key in the catalog has this hash" in done.err
    assert "another" not in done.err


def test_a_token_is_taken_back_by_itself_or_by_what_it_says(run_with: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    token = a_valid_token()
    request = a_request("/httpbin/1.0.0/ip", headers={"authorization": f"Bearer {token}"})
    assert ask(request) == ["allowed"]
    for arguments, stdin in (
        (["--token-file", "-"], f"Bearer {token}\n"),
        (["--jti", "t-1"], ""),
        (["--jti", "t-1", "--issuer", "https://idp.example/"], ""),
        (["--consumer-key", "abc123"], ""),
        (["--user", "carol"], ""),
    ):
        done = run_with("revoke", *arguments, stdin=stdin)
        assert (done.code, done.err) == (0, ""), arguments
        assert token not in done.out
        assert ask(request) == ["token_revoked"], arguments
        assert run_with("unblock", "--all").code == 0
    assert ask(request) == ["allowed"]
    done = run_with("revoke", "--jti", "t-1", "--issuer", "https://idp.example")
    assert done.code == 1 and "did you mean 'https://idp.example/'?" in done.err


def test_tokens_that_were_issued_later_stay_good(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    token = a_valid_token()
    request = a_request("/httpbin/1.0.0/ip", headers={"authorization": f"Bearer {token}"})
    assert run("revoke", "--user", "carol", "--issued-before", "2001-01-01T00:00:00Z").code == 0
    assert ask(request) == ["allowed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--api-key-hash", "abc"], "64 hexadecimal digits"),
        (["--jti", "t", "--issued-before", "2001-01-01T00:00:00Z"], "--issued-before goes with"),
        (["--user", "a", "--issued-before", "yesterday"], "--issued-before: "),
    ],
)
def test_a_revocation_that_makes_no_sense_is_wrong_usage(
    arguments: list[str], told: str, run: Run, folder: Path
) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    done = run("revoke", *arguments)
    assert done.code == 2 and told in done.err


@pytest.mark.parametrize(
    "text", ["Authorization: Bearer abc", '"abc"', "abc def", "{}", "bearer  'abc'", "a" * 16_385]
)
def test_what_cannot_be_a_token_is_not_said_to_be_taken_back(
    text: str, run_with: Run, folder: Path
) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    done = run_with("revoke", "--token-file", "-", stdin=f"{text}\n")
    assert done.code == 2 and "is no token" in done.err
    assert text not in done.err and not (folder / "blocks.yaml").exists()


def test_a_token_that_a_terminal_has_cut_is_not_said_to_be_taken_back(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: "a" * 4095)
    done = run("revoke", "--token-file", "-")
    assert done.code == 2 and "put the token into a file" in done.err


def test_times_are_kept_in_utc_and_those_that_have_none_are_wrong(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    for instant in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
        done = run("revoke", "--user", "a", "--issued-before", instant)
        assert done.code == 2 and "--issued-before: must lie in the years" in done.err
    assert run("revoke", "--user", "a", "--issued-before", "2030-01-31T12:00:00+02:00").code == 0
    assert "issued before 2030-01-31T10:00:00Z" in run("blocks").out
    (folder / "blocks.yaml").write_text("deny: [{user: a, until: 9999-12-31T23:59:59-14:00}]\n")
    listed = run("blocks")
    assert listed.code == 1 and "deny[0].until: must lie in the years" in listed.err


def test_a_redis_that_is_away_keeps_no_block_in_a_file(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(
        f"{WITH_FILE}counters: {{store: redis, url: 'redis://127.0.0.1:1'}}\n"
    )
    assert run("block", "--application", "mobile", "--file").code == 0
    done = run("unblock", "--application", "mobile")
    assert done.code == 1 and "nothing is taken from redis: " in done.err
    assert "is taken back: application mobile" in done.out
    done = run("unblock", "--application", "mobile")
    assert done.code == 1 and "nothing is taken from redis: " in done.err


def test_an_empty_secret_is_wrong_usage(run_with: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    for option, what in (("--token-file", "token"), ("--api-key-file", "API key")):
        done = run_with("revoke", option, "-", stdin="\n")
        assert done.code == 2 and f"no {what} stands there" in done.err


def test_explain_names_the_order_that_refuses_and_where_it_is_kept(run: Run, folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(WITH_FILE)
    explain = (
        *("explain", "--json", "--url", "http://api.example/httpbin/1.0.0/ip"),
        *("-H", f"x-api-key: {API_KEY}"),
    )
    block = json.loads(run("block", "--application", "mobile", "--json").out)["id"]
    found = json.loads(run(*explain).out)["steps"][-1]["found"]
    assert found == f"{block} of {folder / 'blocks.yaml'} fits"
    run("unblock", "--all")
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    order = json.loads(run("revoke", "--api-key-hash", digest, "--json").out)["id"]
    told = json.loads(run(*explain).out)
    why = f"{order} of {folder / 'blocks.yaml'}"
    assert told["steps"][-1]["found"] == f"token_revoked: The credential was revoked. ({why})"
    assert "`extauthz blocks`" in told["advice"][0]
