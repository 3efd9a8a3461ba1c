"""Who may use the API of the admin listener, and what strangers and other pages get."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from extauthz.errors import ConfigError
from extauthz.model.identity import Secret
from extauthz.serving.admin.access import MAX_FAILURES, AccessRules
from extauthz.serving.admin.tokens import TokenFile
from extauthz.settings.reading import read_token_file
from tests.certificates import renew_file
from tests.serving.admin.serving_api import serving_api

LOOPBACK = AccessRules(is_local=True, hosts=frozenset({"admin.example"}))
ANYWHERE = AccessRules(
    is_local=False,
    hosts=frozenset({"admin.example"}),
    tokens=lambda: (Secret("first-token-of-the-two"), Secret("other-token-of-the-two")),
)
TOKEN = (("authorization", "Bearer other-token-of-the-two"),)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:19003", 200),
        ("localhost.", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("admin.example", 200),
        ("admin.example:1", 200),
        # A page of this name may have been pointed to 127.0.0.1 (DNS rebinding).
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("admin.example.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.1.2.3", 421),
        ("0.0.0.0", 421),
        ("user@localhost", 421),
        ("localhost:99999", 421),
        ("localhost, evil.example", 421),
        ("", 421),
    ],
)
async def test_the_api_is_served_under_its_own_names(host: str, status: int) -> None:
    async with serving_api(LOOPBACK) as served:
        answer = await served.send("/api/echo", host=host)
        assert answer.status == status
        if status == 421:
            assert answer.code == "unknown_host"
        # Probes come under any name.
        assert (await served.send("/healthz", host=host)).status == 200


async def test_two_hosts_and_a_target_of_another_server_are_refused() -> None:
    async with serving_api(LOOPBACK) as served:
        two = await served.send("/api/echo", headers=(("host", "evil.example"),))
        assert two.status in (400, 421)
        answer = await served.send("http://evil.example/api/echo")
        assert (answer.status, answer.code) == (421, "unknown_host")


async def test_an_address_is_a_good_name_where_other_machines_connect() -> None:
    async with serving_api(ANYWHERE) as served:
        for host, status in (("10.1.2.3:9003", 200), ("[fd00::1]", 200), ("evil.example", 421)):
            answer = await served.send("/api/echo", host=host, headers=TOKEN)
            assert answer.status == status, host


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 200),
        ((("sec-fetch-site", "same-origin"),), 200),
        ((("sec-fetch-site", "none"),), 200),
        ((("origin", "http://localhost:9003"),), 200),
        ((("origin", "https://LOCALHOST:9003"),), 200),
        ((("sec-fetch-site", "cross-site"),), 403),
        ((("sec-fetch-site", "same-site"),), 403),
        ((("sec-fetch-site", "new-word"),), 403),
        ((("origin", "http://evil.example"),), 403),
        ((("origin", "http://localhost:80"),), 403),
        ((("origin", "null"),), 403),
        ((("origin", ""),), 403),
        ((("origin", "http://localhost:9003"), ("sec-fetch-site", "cross-site")), 403),
    ],
)
async def test_a_page_of_another_origin_may_not_ask(
    headers: tuple[tuple[str, str], ...], status: int
) -> None:
    async with serving_api(LOOPBACK) as served:
        answer = await served.send("/api/echo", headers=headers, host="localhost:9003")
        assert answer.status == status
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (["Bearer first-token-of-the-two"], 200),
        (["bearer other-token-of-the-two"], 200),
        (["Bearer  other-token-of-the-two "], 200),
        ([], 401),
        ([""], 401),
        (["Bearer"], 401),
        (["Bearer "], 401),
        (["other-token-of-the-two"], 401),
        (["Basic other-token-of-the-two"], 401),
        (["Bearer other-token-of-the-tw"], 401),
        (["Bearer OTHER-TOKEN-OF-THE-TWO"], 401),
        (["Bearer first-token-of-the-two", "Bearer other-token-of-the-two"], 401),
        (["Bearer " + "\xff" * 100], 401),
    ],
)
async def test_a_token_is_demanded_where_other_machines_connect(
    sent: list[str], status: int
) -> None:
    async with serving_api(ANYWHERE) as served:
        headers = tuple(("authorization", value) for value in sent)
        answer = await served.send("/api/echo", headers=headers)
        assert answer.status == status
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.code == "token_needed"
        assert (await served.send("/healthz")).status == 200


async def test_a_caller_is_named_by_the_hash_of_its_token() -> None:
    async with serving_api(ANYWHERE) as served:
        answer = await served.send("/api/echo", headers=TOKEN)
    digest = Secret("other-token-of-the-two").digest().hex()
    assert answer.json["caller"] == f"token {digest[:8]}"


async def test_wrong_tokens_are_bounded_and_lock_nobody_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = (("authorization", "Bearer s3cr3t-guess"),)
    async with serving_api(ANYWHERE) as served:
        statuses = [
            (await served.send("/api/echo", headers=wrong)).status for _ in range(MAX_FAILURES + 5)
        ]
        assert statuses == [401] * MAX_FAILURES + [429] * 5
        assert (await served.send("/api/echo", headers=TOKEN)).status == 200
        # Who sends none has guessed nothing.
        assert (await served.send("/api/echo")).status == 401
    said = [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING]
    assert len(said) == 1 and "127.0.0.1" in said[0]
    assert "s3cr3t" not in caplog.text


async def test_tokens_are_read_again_when_their_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text("first-token-of-the-two\n")
    tokens = TokenFile(path, lambda: read_token_file(path, at_least=20))
    rules = AccessRules(is_local=False, tokens=tokens.find_current)

    async with serving_api(rules) as served:

        async def ask(token: str) -> int:
            headers = (("authorization", f"Bearer {token}"),)
            return (await served.send("/api/echo", headers=headers)).status

        assert await ask("other-token-of-the-two") == 401
        renew_file(path, b"first-token-of-the-two\nother-token-of-the-two\n")
        assert (await ask("other-token-of-the-two"), await ask("first-token-of-the-two")) == (
            200,
            200,
        )
        renew_file(path, b"other-token-of-the-two\n")
        assert (await ask("other-token-of-the-two"), await ask("first-token-of-the-two")) == (
            200,
            401,
        )
        renew_file(path, b"short\n")
        assert await ask("other-token-of-the-two") == 200
        path.unlink()
        assert await ask("other-token-of-the-two") == 200
    errors = [it.getMessage() for it in caplog.records if it.levelno == logging.ERROR]
    assert len(errors) == 2 and "can be guessed" in errors[0]


@pytest.mark.parametrize(
    "content", ["", "\n\n", "short", "a" * 30 + "\nshort", "a" * 30 + "\n" + "b\n" * 20]
)
def test_a_token_file_that_is_no_good_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(ConfigError):
        TokenFile(path, lambda: read_token_file(path, at_least=20))
