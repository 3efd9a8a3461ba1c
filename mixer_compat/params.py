"""Reads a handler's parameters: how its instances are read, and how they are answered.

Mixer sends them with every call, as bytes that stay the same until an operator changes the handler,
so each form is read once. A call without parameters (of a session-based adapter, or of a handler
without a configuration) uses the installation's own. A call with parameters that are not known is
denied, because their effect is not known.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Final

from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.message import DecodeError

from extauthz.errors import ExtauthzError
from mixer_compat.property_names import OWN_NAMES, WSO2_NAMES, PropertyNames
from mixer_compat.proto.params_pb2 import Params, Properties
from mixer_compat.proto.wso2_params_pb2 import Params as Wso2Params

_log = logging.getLogger(__name__)

WSO2_ADAPTER: Final = "wso2-adapter"
"""The value of `compat` that stands for WSO2's Mixer adapter."""

_OURS: Final = Params.DESCRIPTOR.full_name
_WSO2S: Final = Wso2Params.DESCRIPTOR.full_name
_MAX_REMEMBERED: Final = 256
_MAX_BYTES: Final = 65_536
_S: Final = 1_000_000
_NO: Final = frozenset({"0", "f", "false"})
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


def _no_names() -> Mapping[str, str]:
    return _NO_NAMES  # shared: dataclasses take no mapping as a plain default


class ParamsError(ExtauthzError):
    """A handler's parameters cannot be used. The text says what to change in the handler."""

    code = "mixer_params_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerParams:
    """A handler's parameters.

    Attributes:
        names: names of the properties.
        headers, query: property to (lower-case) header field, or query parameter.
        quota_tiers: short name of a quota instance to the tier that it counts.
        limits_in_quota: a check ends after scopes, as quota calls ask for the limits.
        valid_for_us, valid_uses: how long and how often an allowed check may be reused.
        as_wso2_adapter: answer as WSO2's adapter did.
        shadow: decide and report to observers; deny nothing, count nothing.
    """

    names: PropertyNames = OWN_NAMES
    headers: Mapping[str, str] = field(default_factory=_no_names)
    query: Mapping[str, str] = field(default_factory=_no_names)
    quota_tiers: Mapping[str, str] = field(default_factory=_no_names)
    limits_in_quota: bool = False
    valid_for_us: int = _S
    valid_uses: int = 1000
    as_wso2_adapter: bool = False
    shadow: bool = False


DEFAULT_PARAMS: Final = HandlerParams()


class ParamsReader:
    """Reads parameters, and caches them.

    Args:
        own: the installation's parameters. They are used when a handler has none, and for
            validity when it says nothing of that; with `shadow`, every handler is in shadow mode.
    """

    def __init__(self, own: HandlerParams = DEFAULT_PARAMS) -> None:
        self.own: Final = own
        self._read: OrderedDict[tuple[str, bytes], HandlerParams] = OrderedDict()

    def __len__(self) -> int:
        """The number of cached parameters."""
        return len(self._read)

    def read(self, config: WireAny) -> HandlerParams:
        """The parameters of the configuration that came with a call.

        Raises:
            ParamsError: it cannot be read, or has parameters that are not known.
        """
        type_url, value = config.type_url, config.value
        if not type_url and not value:
            return self.own
        key = (type_url, value)
        params = self._read.get(key)
        if params is None:
            if len(type_url) + len(value) > _MAX_BYTES:
                raise ParamsError(f"the handler's params are longer than {_MAX_BYTES} bytes")
            params = self._read_new(type_url.rpartition("/")[2], value)
            self._read[key] = params
            if len(self._read) > _MAX_REMEMBERED:
                self._read.popitem(last=False)
        return params

    def _read_new(self, message: str, value: bytes) -> HandlerParams:
        try:
            if message == _OURS:
                return self._read_ours(Params.FromString(value))
            if message == _WSO2S:
                # The only parameter that is still used; the catalog and settings have the others.
                if Wso2Params.FromString(value).validate_subscription.lower() in _NO:
                    _log.warning(
                        "validate_subscription of a WSO2 handler is not used; if an API "
                        "needs no subscription, write subscription: none for it in the "
                        "catalog"
                    )
                return replace(
                    self.own, names=WSO2_NAMES, as_wso2_adapter=True, limits_in_quota=False
                )
        except DecodeError as exc:
            raise ParamsError(f"the handler's params are no {message}") from exc
        raise ParamsError(
            f"the handler's params are of the type {message!r}; the adapter object "
            f"must have the configuration of {_OURS} or of {_WSO2S}"
        )

    def _read_ours(self, params: Params) -> HandlerParams:
        size = params.ByteSize()
        params.DiscardUnknownFields()
        if params.ByteSize() != size:
            raise ParamsError(
                "the handler's params have fields that this version does not know; apply the "
                "manifests of this version, or run the one that they are of"
            )
        if params.compat not in ("", WSO2_ADAPTER):
            raise ParamsError(
                f"compat is {params.compat!r} in the handler's params; "
                f"write {WSO2_ADAPTER!r}, or leave it out"
            )
        if params.valid_for_s < 0 or params.valid_uses < 0:
            raise ParamsError("valid_for_s and valid_uses of the handler's params are 0 or more")
        as_wso2 = params.compat == WSO2_ADAPTER
        given, own = params.properties, self.own
        return HandlerParams(
            names=_read_names(given, WSO2_NAMES if as_wso2 else OWN_NAMES),
            headers={name: field.lower() for name, field in given.headers.items()},
            query=dict(given.query),
            quota_tiers=dict(params.quota_tiers),
            limits_in_quota=params.limits_in_quota,
            valid_for_us=params.valid_for_s * _S or own.valid_for_us,
            valid_uses=params.valid_uses or own.valid_uses,
            as_wso2_adapter=as_wso2,
            shadow=params.shadow or own.shadow,
        )


def _read_names(given: Properties, defaults: PropertyNames) -> PropertyNames:
    parts = (part.name for part in fields(PropertyNames))
    return replace(
        defaults, **{part: name for part in parts if (name := getattr(given, part)) != ""}
    )
