"""Makes the Kubernetes objects that configure Istio's Mixer (1.1 to 1.7) for the adapter.

Mixer drops objects that it cannot read, reports that only in its log, and then lets requests pass.
Therefore every attribute has a default, because an instance without one fails the whole check; a
rule matches only on what the mesh says of the destination and never on what a client can write,
because a request that matches no rule is not checked at all; and templates and adapter have names
of their own, because objects of another adapter with the same name would be replaced.

Object kinds and their fields: Istio's `policy/v1beta1` and `mixer/adapter/model/v1beta1`;
`QuotaSpec` and `QuotaSpecBinding`, which Pilot reads and not Mixer: `mixer/v1/config/client`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from extauthz.errors import ConfigError, Problem
from extauthz.model.apis import Api
from mixer_compat.manifests.descriptors import write_params_descriptor, write_template_descriptor
from mixer_compat.manifests.instances import (
    Compat,
    name_property,
    write_check_properties,
    write_report_dimensions,
)
from mixer_compat.manifests.parts import RequestParts

ISTIO_VERSIONS: Final = ("1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7")
DEFAULT_PORT: Final = 44225
"""The port of WSO2's adapter, so that an existing handler finds this one."""

Manifest = dict[str, Any]

_API_VERSION: Final = "config.istio.io/v1alpha2"
_ADAPTER: Final = "extauthz"
_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_GO_DURATION: Final = re.compile(r"[0-9]+(?:ns|us|ms|s|m|h)(?:[0-9]+(?:ns|us|ms|s|m|h))*|0")
"""A text literal of this form is a duration to Mixer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshService:
    """A Kubernetes service whose requests are checked.

    Attributes:
        api: the API of all its requests; None when host and path determine it.

    Raises:
        ConfigError: a name is invalid, or Mixer would read it as a duration.
    """

    name: str
    namespace: str
    api: Api | None = None

    def __post_init__(self) -> None:
        for part in (self.name, self.namespace):
            if not _DNS_LABEL.fullmatch(part):
                wrong = f"{part!r} in '{self.name}.{self.namespace}'"
                message = f"{wrong} is no name of a service or namespace; write NAME.NAMESPACE"
                raise ConfigError([Problem(message=message)])
            if _GO_DURATION.fullmatch(part):
                message = f"Mixer reads the name {part!r} as a duration, and would drop the rule"
                raise ConfigError([Problem(message=message)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAuthentication:
    """TLS to the adapter, and a bearer token. Paths are Mixer's; it reads the token once.

    The token cannot be left out: Mixer drops a handler that has TLS without a token.

    Attributes:
        header: the header of the token; in `authorization` it follows "Bearer".
    """

    ca_file: str
    server_name: str
    token_file: str
    header: str = "authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualAuthentication:
    """TLS to the adapter with Mixer's own certificate. Paths are Mixer's.

    The adapter's and Mixer's certificates must have a URI SAN in common; Mixer compares these
    instead of the host's name.
    """

    ca_file: str
    server_name: str
    certificate_file: str
    key_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """Options for the objects.

    Attributes:
        address: the adapter's address for Mixer, as host:port.
        namespace: of all objects; only those in Mixer's own namespace hold for every service.
        services: the services whose requests are checked. When it is empty, these are all services
            of the mesh, or with the names of WSO2's adapter those in the API Manager's own rules.
        with_quota: limits are counted by quota instances, so that checks can be reused.
        shadow: decide and report, but deny nothing.
        timeout_ms: the longest time, in milliseconds, that Mixer waits for the adapter.

    Raises:
        ConfigError: the namespace has no valid name.
    """

    address: str
    namespace: str = "istio-system"
    services: tuple[MeshService, ...] = ()
    with_quota: bool = False
    compat: Compat = Compat.OWN
    shadow: bool = False
    authentication: TokenAuthentication | MutualAuthentication | None = None
    timeout_ms: int = 1000

    def __post_init__(self) -> None:
        if not _DNS_LABEL.fullmatch(self.namespace):
            message = f"{self.namespace!r} is no name of a namespace; write Mixer's own"
            raise ConfigError([Problem(message=message)])


@dataclass(frozen=True, slots=True)
class _Names:
    handler: str
    check: str
    report: str
    quota: str
    rule: str


_NAMES: Final = {
    Compat.OWN: _Names(
        "extauthz", "extauthz-check", "extauthz-report", "extauthz-quota", "extauthz"
    ),
    Compat.WSO2_ADAPTER: _Names(
        "wso2-handler", "wso2-authorization", "wso2-metrics", "wso2-quota", "wso2-extauthz"
    ),
}


def make_manifests(options: ManifestOptions, parts: RequestParts) -> list[Manifest]:
    """Makes the objects, each before those that refer to it.

    Args:
        options: options for the objects.
        parts: the parts of a request that the catalog needs.

    Raises:
        ConfigError: quotas are wanted without any services; a service is named twice; or objects
            would have the same name.
    """
    if options.with_quota and not options.services:
        message = "quotas are bound to services: name them, like --service httpbin.default"
        raise ConfigError([Problem(message=message)])
    named = [(service.name, service.namespace) for service in options.services]
    for name, namespace in set(named):
        if named.count((name, namespace)) > 1:
            message = f"{name}.{namespace} is named twice, and would be checked and counted twice"
            raise ConfigError([Problem(message=message)])
    made = [*_make_adapter(options, parts)]
    if options.compat is Compat.WSO2_ADAPTER:
        # Istio's own attribute manifest lacks these two; Mixer merges all attribute manifests.
        attributes = {name: {"valueType": "STRING"} for name in ("api.context", "resource.scope")}
        made.append(
            _object(options, "attributemanifest", "wso2-extauthz", {"attributes": attributes})
        )
    apis = list(dict.fromkeys(service.api for service in options.services)) or [None]
    for api in apis:
        services = [service for service in options.services if service.api is api]
        made += _make_rule(options, parts, api, services)
    _check_names(made)
    return made


def _check_names(made: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in made]
    for kind, name in set(names):
        if names.count((kind, name)) > 1:
            message = f"two APIs would both have the {kind} {name}; rename one of them"
            raise ConfigError([Problem(message=message)])


def _make_adapter(options: ManifestOptions, parts: RequestParts) -> Iterator[Manifest]:
    templates = ["authorization", "metric", *(["quota"] if options.with_quota else [])]
    for template in templates:
        spec = {"descriptor": write_template_descriptor(template)}
        yield _object(options, "template", _template(template), spec)
    yield _object(
        options,
        "adapter",
        _ADAPTER,
        {
            "description": "API keys, tokens, subscriptions, scopes and rate limits",
            "session_based": False,
            "templates": [_template(template) for template in templates],
            "config": write_params_descriptor(),
        },
    )
    timeout_s = f"{options.timeout_ms / 1000:.3f}".rstrip("0").rstrip(".")
    connection: Manifest = {"address": options.address, "timeout": f"{timeout_s}s"}
    if options.authentication is not None:
        connection["authentication"] = _authentication(options.authentication)
    handler: Manifest = {"adapter": _ADAPTER, "connection": connection}
    params = _params(options, parts)
    if params:
        handler["params"] = params
    yield _object(options, "handler", _NAMES[options.compat].handler, handler)


def _params(options: ManifestOptions, parts: RequestParts) -> Manifest:
    """The handler's params that differ from the defaults of extauthz.mixer.v1.Params."""
    params: Manifest = {}
    if parts.headers:
        params["properties"] = {"headers": {name_property(name): name for name in parts.headers}}
    if options.with_quota:
        params["limits_in_quota"] = True
    if options.compat is not Compat.OWN:
        params["compat"] = options.compat.value
    if options.shadow:
        params["shadow"] = True
    return params


def _authentication(wanted: TokenAuthentication | MutualAuthentication) -> Manifest:
    found = {"caCertificates": wanted.ca_file, "serverName": wanted.server_name}
    if isinstance(wanted, TokenAuthentication):
        place = {"authHeader": "BEARER"}
        if wanted.header != "authorization":
            place = {"customHeader": wanted.header}
        return {"tls": {**found, "tokenPath": wanted.token_file, **place}}
    keys = {"privateKey": wanted.key_file, "clientCertificate": wanted.certificate_file}
    return {"mutual": {**keys, **found}}


def _make_rule(
    options: ManifestOptions, parts: RequestParts, api: Api | None, services: list[MeshService]
) -> Iterator[Manifest]:
    """The instances of one API, or of all APIs that are found by path, and the rule for them."""
    names = _NAMES[options.compat]
    end = "" if api is None else f"-{_slug(api.name)}-{_slug(api.version)}"
    check = write_check_properties(options.compat, parts, api)
    report = write_report_dimensions(options.compat, parts, api)
    instances = [f"{names.check}{end}", f"{names.report}{end}"]
    yield _instance(options, instances[0], "authorization", {"subject": {"properties": check}})
    yield _instance(
        options, instances[1], "metric", {"value": "response.size | 0", "dimensions": report}
    )
    if options.with_quota:
        quota = f"{names.quota}{end}"
        instances.append(quota)
        yield _instance(options, quota, "quota", {"dimensions": check})
        yield _object(
            options, "QuotaSpec", quota, {"rules": [{"quotas": [{"quota": quota, "charge": 1}]}]}
        )
        bound = [{"name": service.name, "namespace": service.namespace} for service in services]
        specs = [{"name": quota, "namespace": options.namespace}]
        yield _object(options, "QuotaSpecBinding", quota, {"quotaSpecs": specs, "services": bound})
    if options.compat is Compat.WSO2_ADAPTER and not services:
        return  # the API Manager has published a rule for each API
    handler = f"{names.handler}.{options.namespace}"
    spec = {
        "match": _match(services),
        "actions": [{"handler": handler, "instances": instances}],
    }
    yield _object(options, "rule", f"{names.rule}{end}", spec)


def _match(services: list[MeshService]) -> str:
    # Mixer also checks plain TCP connections, which have no request to decide on.
    match = (
        '(context.reporter.kind | "inbound") == "inbound" && (context.protocol | "http") != "tcp"'
    )
    if not services:
        return match
    destinations = " || ".join(
        f'((destination.service.name | "") == "{service.name}" && '
        f'(destination.service.namespace | "") == "{service.namespace}")'
        for service in services
    )
    return f"{match} && ({destinations})"


def _instance(options: ManifestOptions, name: str, template: str, params: Manifest) -> Manifest:
    return _object(options, "instance", name, {"template": _template(template), "params": params})


def _object(options: ManifestOptions, kind: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": options.namespace}
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _template(name: str) -> str:
    return f"{_ADAPTER}-{name}"


def _slug(text: str) -> str:
    """The characters of a text that an object's name may have."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
