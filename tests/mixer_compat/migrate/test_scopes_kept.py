"""Whatever patterns the specs of a service have, a scope that was asked for is asked for still.

The old answer comes from Envoy's rules: of a spec, its own attributes, then those of the best
template, then those of each regex that matches; then the next spec.
"""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.model.routing.routes import ResourceTree, Route
from tests.mixer_compat.migrate.adapters.test_apis import a_spec
from tests.mixer_compat.migrate.reading.test_path_templates import google_fits
from tests.mixer_compat.migrate.test_safe_side import migrate

SEGMENTS = ["a", "b", "7"]
TEMPLATES = st.lists(
    st.sampled_from([*SEGMENTS, "*", "{v}"]), max_size=3
).flatmap(lambda some: st.sampled_from([some, [*some, "**"]]))  # fmt: skip
REGEXES = st.sampled_from(
    ["/a", "/a/.*", "/[^/]+", r"/\d+/b", "/(a|b)", "/a|/b", ".*", "/a/[^/]+/b", "/b/?", "/a(/b)?"]
)
SCOPES = st.sampled_from(["", "s1", "s2", "s3"])
PATTERNS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST"]),
        st.one_of(
            TEMPLATES.map(lambda some: "/" + "/".join(some)), REGEXES.map(lambda one: f"~{one}")
        ),
        SCOPES,
    ),
    max_size=4,
)
SPECS = st.lists(st.tuples(SCOPES, PATTERNS), min_size=1, max_size=3)
PATHS = st.lists(st.sampled_from([*SEGMENTS, "c"]), max_size=4)


def find_best(patterns: list[tuple[str, str, str]], method: str, path: list[str]) -> str:
    """The scope of the best template of a spec; of two alike the first."""
    found: dict[tuple[int, ...], str] = {}
    for asked, template, scope in patterns:
        if asked != method or template.startswith("~"):
            continue
        segments = [one for one in template.split("/")[1:] if one]
        if google_fits(segments, path):
            rank = tuple({"*": 1, "{v}": 1, "**": 2}.get(one, 0) for one in segments)
            # Ends beat a rest, where one goes on and the other has ended.
            found.setdefault((*rank, -1) if "**" not in segments else rank, scope)
    return found[min(found)] if found else ""


def find_old_scope(
    specs: list[tuple[str, list[tuple[str, str, str]]]], method: str, path: list[str]
) -> str:
    scope = ""
    for own, patterns in specs:
        scope = own or scope
        scope = find_best(patterns, method, path) or scope
        for asked, regex, of_regex in patterns:
            whole = "/" + "/".join(path)
            if asked == method and regex.startswith("~") and re.fullmatch(regex[1:], whole):
                scope = of_regex or scope
    return scope


@settings(max_examples=100, deadline=None)
@given(specs=SPECS, method=st.sampled_from(["GET", "POST"]), path=PATHS, slash=st.booleans())
def test_a_scope_that_was_asked_for_is_asked_for_still(
    specs: list[tuple[str, list[tuple[str, str, str]]]],
    method: str,
    path: list[str],
    *,
    slash: bool,
) -> None:
    texts = [
        a_spec(
            f"spec-{number}", f"A{number}", "v1", ["s"], *patterns,
            **({"resource.scope": own} if own else {}),
        )
        for number, (own, patterns) in enumerate(specs)
    ]  # fmt: skip
    deciding, _ = migrate("".join(texts))
    last = deciding.catalog.apis[f"A{len(specs) - 1}", "v1"]
    assert last.base_paths == ("",)
    segments = [*path, ""] if slash and path else path or [""]
    route = ResourceTree(last).find(segments, 0, method)
    assert isinstance(route, Route)
    # A regex did not match with the slash; what it asked for without it is not looked at then.
    old = find_old_scope(specs, method, path)
    if slash and any(one.startswith("~") for _, patterns in specs for _, one, _ in patterns):
        return
    resource = route.resource
    assert not old or old in resource.scopes, (old, resource)
    assert resource.all_scopes or len(resource.scopes) <= 1
