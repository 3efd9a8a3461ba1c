"""Envoy configuration that asks extauthz about every request, made from typed messages.

Rules:

- Safe unless told otherwise: Envoy fails closed, normalises paths before anyone reads them,
  refuses what two parties may read differently, checks the answer's headers again, and its
  admin port is on loopback.
- Only fields that Envoy 1.36 knows, so that any release since then takes the result.

The typed messages (`envoy-data-plane`) take half a second to import. That happens on first
use: `extauthz.envoy.configuration.typed` is imported inside the functions. The package comes
with the extra `envoy-config` (docs/adr/0037).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from extauthz.envoy.configuration.parameters import EnvoyParameters, check_parameters
from extauthz.errors import ExtauthzError


class NotInstalledError(ExtauthzError):
    """A package of an extra is missing; the text says which extra to install."""

    code = "not_installed"


def write_bootstrap(parameters: EnvoyParameters) -> dict[str, Any]:
    """A whole envoy.config.bootstrap.v3.Bootstrap in its JSON form.

    Raises:
        ConfigError: parameters that contradict each other, or no address.
        NotInstalledError: the extra `envoy-config` is not installed.
    """
    _require_messages()
    from extauthz.envoy.configuration import typed

    check_parameters(parameters)
    written = typed.write_dict(typed.make_bootstrap(parameters))
    for listener in written["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        _say_defaults(manager["http_filters"][0])
    return written


def write_filter(parameters: EnvoyParameters) -> dict[str, Any]:
    """The ext_authz entry of an HTTP connection manager's `http_filters`, in its JSON form."""
    _require_messages()
    from extauthz.envoy.configuration import typed

    check_parameters(parameters)
    return _say_defaults(typed.write_dict(typed.make_filter(parameters)))


def write_access_log() -> dict[str, Any]:
    """The entry of an HTTP connection manager's `access_log` that reports finished requests."""
    _require_messages()
    from extauthz.envoy.configuration import access_log, typed

    return typed.write_dict(access_log.make_grpc_log())


def write_clusters(parameters: EnvoyParameters) -> list[dict[str, Any]]:
    """The cluster that `write_filter` asks, and that of access logs if there are, as JSON."""
    _require_messages()
    from extauthz.envoy.configuration import typed

    check_parameters(parameters)
    return [typed.write_dict(each) for each in typed.make_extauthz_clusters(parameters)]


def render_bootstrap(parameters: EnvoyParameters) -> str:
    """`write_bootstrap` as YAML, for ``envoy -c``."""
    return _render(write_bootstrap(parameters))


def render_filter(parameters: EnvoyParameters) -> str:
    """The filter, and the cluster that it asks, as YAML to paste into an Envoy configuration.

    With `access_logs`, the entry of the connection manager's `access_log`, too.
    """
    written = {"http_filters": [write_filter(parameters)], "clusters": write_clusters(parameters)}
    if parameters.access_logs:
        written["access_log"] = [write_access_log()]
    return _render(written)


def _say_defaults(written: dict[str, Any]) -> dict[str, Any]:
    """Writes out what matters for safety, though it is Envoy's default."""
    config = written["typed_config"]
    config.setdefault("failure_mode_allow", False)
    config.setdefault("clear_route_cache", False)
    return written


def _render(written: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(written, sort_keys=False)


def _require_messages() -> None:
    if find_spec("envoy_data_plane") is None:
        raise NotInstalledError(
            "envoy-data-plane is not installed; the commands envoy-config and demo write Envoy's "
            "configuration with it: pip install 'extauthz[envoy-config]'"
        )
