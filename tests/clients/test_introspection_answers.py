"""Every answer of a provider, as the table in the documentation has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.clients.introspection_answers import TokenRefused, read_answer
from extauthz.errors import IntrospectionError
from extauthz.model.identity import Secret
from extauthz.model.issuers import IntrospectionEndpoint

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "introspection.md"
ENDPOINT: Final = IntrospectionEndpoint(
    url="https://idp.example/introspect", client_id="gw", client_secret=Secret("hunter2")
)
ANY: Final = (b"", b"<html>", b"{}", b"[]", b'{"error": 1}', b'{"error": "made_up"}', b"\xff")
TOLD: Final = {
    "could not decide": "answer",
    "could not decide: check `url`": r"introspection\.url",
    "could not decide: check our client id and secret": "our client id and secret .*'gw'",
}


def documented() -> Iterator[tuple[int, bytes, str]]:
    """Status, body and meaning of each row that an answer can be made of."""
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    for statuses, body, meaning in rows:
        bodies = [body[1:-1].encode()] if body.startswith("`") else list(ANY)
        if "compressed" in body:
            continue  # how a body arrives is the client's business
        for status in statuses.split(", "):
            for one in bodies:
                yield int(status), one, meaning


@pytest.mark.parametrize(("status", "body", "meaning"), list(documented()))
def test_an_answer_means_what_the_table_says(status: int, body: bytes, meaning: str) -> None:
    if meaning.startswith("active"):
        assert read_answer(status, body, ENDPOINT)["active"] is True
    elif meaning != "denied":
        with pytest.raises(IntrospectionError, match=TOLD[meaning]):
            read_answer(status, body, ENDPOINT)
    elif status == 200:
        assert read_answer(status, body, ENDPOINT)["active"] is False
    else:
        with pytest.raises(TokenRefused, match=str(status)):
            read_answer(status, body, ENDPOINT)


def test_the_table_has_answers_of_all_kinds() -> None:
    rows = list(documented())
    assert {status // 100 for status, _, _ in rows} == {2, 3, 4, 5}
    assert {meaning for _, _, meaning in rows} == {
        "active, if its claims hold (below)",
        "denied",
        *TOLD,
    }


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=40) | st.sampled_from([b'{"active": true}', b'{"error": "hunter2"}']),
)
def test_only_active_true_with_status_200_is_active(status: int, body: bytes) -> None:
    try:
        active: object = read_answer(status, body, ENDPOINT)["active"]
        said = ""
    except (TokenRefused, IntrospectionError) as error:
        active, said = None, str(error)
    assert "hunter2" not in said
    assert active is None or (status == 200 and isinstance(active, bool))
