"""A part that is made without settings goes by the same defaults as one that is made with them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Final

import pytest

from extauthz.answers.backend_jwt_style import BackendJwtStyle
from extauthz.app.answers import read_answer_style
from extauthz.app.core import read_authentication_rules
from extauthz.app.doors.mixer import read_handler_params
from extauthz.app.service import read_host_limits
from extauthz.counters.leases.store import LeaseRules
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.redis.settings import RedisSettings
from extauthz.envoy.authorization import AnswerStyle
from extauthz.envoy.configuration.parameters import EnvoyParameters
from extauthz.model.limits import US_PER_S, Charge
from extauthz.policy.authentication.authenticate import AuthenticationRules
from extauthz.policy.steps import PipelineRules
from extauthz.serving.limits import HostLimits
from extauthz.serving.load import Load
from extauthz.settings.catalog import CatalogSettings
from extauthz.settings.stores import LeaseSettings
from extauthz.settings.tree import BackendJwtSettings, Settings
from mixer_compat.params import HandlerParams
from tests.builders import FakeClock

SETTINGS: Final = Settings(catalog=CatalogSettings(files=(Path("catalog.yaml"),)))


def default_of(made: Any, name: str) -> Any:
    """The default of an argument that something is made with."""
    return inspect.signature(made).parameters[name].default


def test_whole_values_that_are_made_of_default_settings_are_the_defaults() -> None:
    assert read_authentication_rules(SETTINGS) == AuthenticationRules()
    assert read_answer_style(SETTINGS.responses, FakeClock()) == AnswerStyle()
    assert read_handler_params(SETTINGS) == HandlerParams()
    assert read_host_limits(SETTINGS.server) == HostLimits()


_COUNTERS: Final = SETTINGS.counters
_CREDENTIALS: Final = SETTINGS.credentials
_LEASES: Final = LeaseSettings()
_BACKEND_JWT: Final = BackendJwtSettings(private_key_file=Path("key.pem"))


@pytest.mark.parametrize(
    ("made", "name", "default"),
    [
        (PipelineRules, "trusted_hops", _CREDENTIALS.trusted_hops),
        (PipelineRules, "use_remote_address", _CREDENTIALS.use_remote_address),
        (PipelineRules, "on_outage", _COUNTERS.on_outage),
        (EnvoyParameters, "trusted_hops", _CREDENTIALS.trusted_hops),
        (EnvoyParameters, "extauthz", SETTINGS.listen.grpc),
        (EnvoyParameters, "own_headers", SETTINGS.responses.own_headers),
        (Charge, "on_outage", _COUNTERS.on_outage),
        (MemoryCounterStore, "max_keys", _COUNTERS.max_keys),
        (RedisSettings, "prefix", _COUNTERS.prefix),
        (RedisSettings, "timeout_s", _COUNTERS.timeout / US_PER_S),
        (LeaseRules, "size", _LEASES.size),
        (LeaseRules, "hot_per_s", _LEASES.hot_per_second),
        (Load, "max_in_flight", SETTINGS.server.max_in_flight),
        (Load, "max_streams", SETTINGS.server.max_streams),
        (BackendJwtStyle, "header", _BACKEND_JWT.header),
        (BackendJwtStyle, "issuer", _BACKEND_JWT.issuer),
        (BackendJwtStyle, "dialect", _BACKEND_JWT.dialect),
        (BackendJwtStyle, "algorithm", _BACKEND_JWT.algorithm),
        (BackendJwtStyle, "key_id", _BACKEND_JWT.key_id),
        (BackendJwtStyle, "ttl_us", _BACKEND_JWT.ttl),
    ],
)
def test_a_default_that_stands_twice_is_the_same(made: Any, name: str, default: Any) -> None:
    assert default_of(made, name) == default
