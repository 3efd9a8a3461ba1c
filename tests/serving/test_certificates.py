"""When certificates in files expire."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from extauthz.serving.certificates import CertificateFile, find_first_end_s
from tests.certificates import Authority, renew_file

FIRST = Authority("first")
MADE_S = datetime.now(UTC).timestamp()
GOOD, OVER = FIRST.issue().cert, FIRST.issue(is_expired=True).cert


def find_hours_left(file: CertificateFile) -> float | None:
    """From when the certificates of this module were made."""
    expiry_s = file.find_expiry_s()
    return None if expiry_s is None else (expiry_s - MADE_S) / 3600


@pytest.mark.parametrize(
    ("content", "holds_authorities", "hours_left"),
    [
        (GOOD, False, 1),
        (OVER, False, -0.5),
        (GOOD + OVER, False, -0.5),
        (GOOD + OVER, True, 1),
        (b"no PEM", False, None),
        (None, False, None),
    ],
    ids=["good", "expired", "chain", "authorities", "no PEM", "missing"],
)
def test_a_chain_expires_with_its_first_and_authorities_with_their_last(
    content: bytes | None, *, holds_authorities: bool, hours_left: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "tls.crt"
    if content is not None:
        path.write_bytes(content)
    file = CertificateFile(path, holds_authorities=holds_authorities)
    assert find_hours_left(file) == pytest.approx(hours_left, abs=0.1)


def test_a_renewed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tls.crt"
    renew_file(path, OVER)
    file = CertificateFile(path)
    assert find_hours_left(file) == pytest.approx(-0.5, abs=0.1)
    renew_file(path, GOOD)
    assert find_hours_left(file) == pytest.approx(1, abs=0.1)
    renew_file(path, GOOD[:100])
    assert find_hours_left(file) == pytest.approx(1, abs=0.1)
    path.unlink()
    assert find_hours_left(file) == pytest.approx(1, abs=0.1)


def test_of_several_authorities_the_first_that_has_none_left_counts() -> None:
    good, over = GOOD.decode(), OVER.decode()
    assert find_first_end_s([]) is None
    assert find_first_end_s(["no PEM"]) is None
    ended_s, ends_s = find_first_end_s([over]), find_first_end_s([good + over])
    assert ended_s is not None and ends_s is not None and ended_s < ends_s
    assert find_first_end_s(["no PEM", good + over, over]) == ended_s
