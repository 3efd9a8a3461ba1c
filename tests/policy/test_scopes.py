"""Whether a token's scopes cover what a resource asks for."""

from __future__ import annotations

import pytest

from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import ANONYMOUS, Identity, SecurityScheme
from extauthz.policy.scopes import SCOPE_EXTENSION, check_named_scopes, check_scopes
from tests.builders import a_request, a_resource


def with_scopes(*scopes: str) -> Identity:
    return Identity(scheme=SecurityScheme.JWT, scopes=frozenset(scopes))


@pytest.mark.parametrize(
    ("asked", "held", "passes"),
    [
        ((), (), True),
        ((), ("a",), True),
        (("a",), ("a",), True),
        (("a",), ("a", "b"), True),
        (("a",), ("b",), False),
        (("a",), (), False),
        (("a",), ("A",), False),
        (("a",), ("ab",), False),
        (("a", "b"), ("a",), True),
        (("a", "b"), ("b",), True),
        (("a", "b"), ("a", "b"), True),
        (("a", "b"), ("c",), False),
        (("a b",), ("a", "b"), False),
    ],
)
def test_any_of_the_scopes_is_enough(
    asked: tuple[str, ...], held: tuple[str, ...], *, passes: bool
) -> None:
    denial = check_scopes(a_resource(scopes=asked), with_scopes(*held))
    assert (denial is None) is passes


@pytest.mark.parametrize(
    ("held", "passes"), [(("a", "b", "c"), True), (("a", "b"), True), (("a",), False), ((), False)]
)
def test_all_of_the_scopes_are_needed_where_the_resource_says_so(
    held: tuple[str, ...], *, passes: bool
) -> None:
    resource = a_resource(scopes=("a", "b"), all_scopes=True)
    assert (check_scopes(resource, with_scopes(*held)) is None) is passes


@pytest.mark.parametrize("identity", [Identity(scheme=SecurityScheme.API_KEY), ANONYMOUS])
def test_scopes_do_not_apply_to_what_has_none_of_its_kind(identity: Identity) -> None:
    assert check_scopes(a_resource(scopes=("a",)), identity) is None


def test_an_api_key_with_scopes_of_its_own_is_bound_by_them() -> None:
    identity = Identity(scheme=SecurityScheme.API_KEY, scopes=frozenset())
    assert check_scopes(a_resource(scopes=("a",)), identity) is not None


def test_names_the_scopes_that_are_asked_for() -> None:
    denial = check_scopes(a_resource(scopes=("a", "b")), with_scopes())
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.scopes) == (Reason.INSUFFICIENT_SCOPE, ("a", "b"))


@pytest.mark.parametrize(
    ("named", "held", "passes"),
    [
        ("", (), True),
        ("a", ("a",), True),
        ("a", ("b",), False),
        ("a b", ("b",), True),
        ("a b", ("c",), False),
        ("  ", (), True),
    ],
)
def test_a_proxy_may_name_scopes_of_its_own(
    named: str, held: tuple[str, ...], *, passes: bool
) -> None:
    request = a_request(context={SCOPE_EXTENSION: named})
    denial = check_named_scopes(request, with_scopes(*held))
    assert (denial is None) is passes
    if denial is not None:
        assert (denial.reason, denial.scopes) == (
            Reason.INSUFFICIENT_SCOPE,
            tuple(named.split()),
        )


def test_named_scopes_do_not_apply_to_what_has_none_of_its_kind() -> None:
    request = a_request(context={SCOPE_EXTENSION: "a"})
    assert check_named_scopes(request, ANONYMOUS) is None
