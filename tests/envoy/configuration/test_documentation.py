"""What the reference shows is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

from extauthz.answers.sendable import MAX_VALUE_BYTES
from extauthz.envoy.check_response import MAX_BODY_BYTES
from extauthz.envoy.configuration.bootstrap import render_filter
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "envoy.md").read_text()


def test_the_page_shows_the_filter_that_is_printed() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    printed = render_filter(EnvoyParameters(upstreams=(Upstream(address="127.0.0.1:8080"),)))
    assert shown == printed


def test_the_page_names_the_sizes_that_are_enforced() -> None:
    assert f"at most {MAX_VALUE_BYTES} bytes" in PAGE
    assert f"cut at {MAX_BODY_BYTES} bytes" in PAGE
