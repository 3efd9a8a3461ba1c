"""What a handler's parameters mean, and what becomes of those that mean nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as WireAny

from mixer_compat.params import HandlerParams, ParamsError, ParamsReader
from mixer_compat.property_names import OWN_NAMES, WSO2_NAMES, PropertyNames
from mixer_compat.proto.params_pb2 import Params, Properties
from mixer_compat.proto.wso2_params_pb2 import Params as Wso2Params
from tests.builders import S
from tests.mixer_compat.asking import WSO2_PARAMS, Asking, a_config, reason_of

OWN = HandlerParams(
    valid_for_us=7 * S, valid_uses=70, limits_in_quota=True, quota_tiers={"rq": "T"}
)


def read(params: Any, own: HandlerParams = OWN) -> HandlerParams:
    config = a_config(params)
    assert config is not None
    return ParamsReader(own).read(config)


def test_a_handler_without_parameters_goes_by_the_installations() -> None:
    assert ParamsReader(OWN).read(WireAny()) is OWN


def test_parameters_stand_for_themselves() -> None:
    read_params = read(
        Params(
            properties=Properties(credential="auth", headers={"a": "X-Api-Key"}, query={"q": "k"}),
            quota_tiers={"other": "Gold"},
            valid_for_s=3,
            valid_uses=4,
        )
    )
    assert read_params.names.credential == "auth"
    assert read_params.names.path == "path"
    assert read_params.headers == {"a": "x-api-key"}
    assert read_params.query == {"q": "k"}
    assert read_params.quota_tiers == {"other": "Gold"}
    assert (read_params.valid_for_us, read_params.valid_uses) == (3 * S, 4)
    assert not read_params.limits_in_quota, "the installation's word is for handlers without any"


def test_what_parameters_leave_out_of_validity_is_the_installations() -> None:
    read_params = read(Params())
    assert (read_params.valid_for_us, read_params.valid_uses) == (7 * S, 70)


def test_limits_hold_in_checks_unless_a_handler_says_otherwise() -> None:
    """An empty configuration, and one of WSO2's, must not leave limits to nobody."""
    assert not read(Params()).limits_in_quota
    assert not read(WSO2_PARAMS).limits_in_quota
    assert read(Params(limits_in_quota=True)).limits_in_quota


@pytest.mark.parametrize("params", [WSO2_PARAMS, Wso2Params(), Params(compat="wso2-adapter")])
def test_wso2s_handlers_have_its_names(params: Any) -> None:
    read_params = read(params)
    assert read_params.as_wso2_adapter
    assert read_params.names == WSO2_NAMES


def test_single_names_may_differ_from_wso2s() -> None:
    given = Params(compat="wso2-adapter", properties=Properties(host="h"))
    names = read(given).names
    assert (names.host, names.api) == ("h", "api_name")


def test_every_part_can_be_named() -> None:
    parts = [part.name for part in fields(PropertyNames)]
    named: dict[str, Any] = {part: f"my_{part}" for part in parts}
    given = Properties(**named)
    names = read(Params(properties=given)).names
    assert [getattr(names, part) for part in parts] == [f"my_{part}" for part in parts]
    assert {field.name for field in Properties.DESCRIPTOR.fields} == {*parts, "headers", "query"}


def test_a_parts_own_name_is_its_propertys() -> None:
    assert all(getattr(OWN_NAMES, part.name) == part.name for part in fields(PropertyNames))


@pytest.mark.parametrize("shadow", [False, True])
def test_in_shadow_by_the_settings_every_handler_is(*, shadow: bool) -> None:
    own = HandlerParams(shadow=shadow)
    assert [read(params, own).shadow for params in (Params(), WSO2_PARAMS)] == [shadow, shadow]
    assert read(Params(shadow=True), own).shadow


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (Params(compat="wso2"), "write 'wso2-adapter'"),
        (Params(valid_for_s=-1), "valid_for_s"),
        (Params(valid_uses=-1), "valid_uses"),
        (WireAny(type_url="type.googleapis.com/other.Params"), "of the type 'other.Params'"),
        (WireAny(value=b"\x0a\x00"), "of the type ''"),
        (WireAny(type_url="x/extauthz.mixer.v1.Params", value=b"\xff"), "are no extauthz.mixer"),
        (WireAny(type_url="x/adapter.wso2.config.Params", value=b"\xff"), "are no adapter.wso2"),
        (
            WireAny(type_url="x/extauthz.mixer.v1.Params", value=b"\x32" + b"\x80\x80\x08" * 30000),
            "longer than 65536 bytes",
        ),
        (
            WireAny(type_url="x" * 65_536 + "/extauthz.mixer.v1.Params"),
            "longer than 65536 bytes",
        ),
        (WireAny(type_url="x/extauthz.mixer.v1.Params", value=b"\xf8\x07\x01"), "does not know"),
        (
            # properties { 31: 1 }
            WireAny(type_url="x/extauthz.mixer.v1.Params", value=b"\x0a\x03\xf8\x01\x01"),
            "does not know",
        ),
    ],
)
async def test_parameters_that_mean_nothing_deny(params: Any, says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        read(params)
    assert reason_of(await Asking().check({}, params)) == "unavailable"


def test_what_was_read_is_remembered_and_bounded() -> None:
    reader = ParamsReader()
    configs = [a_config(Params(valid_for_s=n)) for n in range(1, 400)]
    for config in configs:
        assert config is not None
        assert reader.read(config) is reader.read(config)
    assert len(reader) == 256


@pytest.mark.parametrize(("said", "warns"), [("true", False), ("False", True), ("", False)])
def test_a_subscription_check_that_was_turned_off_is_told(
    said: str, *, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    read(Wso2Params(validate_subscription=said))
    assert ("subscription: none" in caplog.text) is warns
