"""What Mixer makes of a set of objects: what it keeps, what it drops, and what it says of it.

Follows `mixer/pkg/runtime/config/ephemeral.go` of Istio 1.1 to 1.7 for adapters of other
processes. Nothing is fatal: an object with a mistake is dropped, and so is what refers to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.mixer_compat.standin.encoding import (
    TEMPLATE_NAME,
    TEMPLATE_VARIETY,
    DescriptorError,
    Descriptors,
    Encoder,
    build_instance,
    read_descriptors,
    read_options,
    write_params,
)
from tests.mixer_compat.standin.expressions import (
    STOCK_ATTRIBUTES,
    Expression,
    ExpressionError,
    compile_expression,
)

CHECK: Final = 0
REPORT: Final = 1
QUOTA: Final = 2
CONFIG_NAMESPACE: Final = "istio-system"
"""Mixer's --configDefaultNamespace: rules there count for every request."""

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """A template object that was understood."""

    name: str
    package: str
    variety: int
    descriptors: Descriptors

    @property
    def method(self) -> str:
        """The gRPC path of the handler."""
        package, service = self.descriptors.service()
        return f"/{package}.{service.name}/{service.method[0].name}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter object all of whose templates are there."""

    templates: tuple[Template, ...]
    session_based: bool
    params: Descriptors | None
    package: str


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler with its encoded params.

    Attributes:
        adapter_config: type URL and bytes; None when the adapter has no config.
        timeout_s: None for the caller's own deadline.
    """

    name: str
    adapter: Adapter
    address: str
    timeout_s: float | None
    adapter_config: tuple[str, bytes] | None


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that fits its template."""

    name: str
    template: Template
    encode: Encoder


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with at least one action left."""

    name: str
    namespace: str
    match: Expression | None
    actions: tuple[tuple[Handler, tuple[Instance, ...]], ...]


@dataclass(slots=True)
class Snapshot:
    """What Mixer works with, and what stands in its log."""

    templates: dict[str, Template] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    handlers: dict[str, Handler] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    vocabulary: dict[str, str] = field(default_factory=dict)


def read_snapshot(objects: Iterable[Manifest]) -> Snapshot:
    """Never raises for what Mixer would only log."""
    kinds: dict[str, dict[str, Manifest]] = {}
    for each in objects:
        assert each["apiVersion"] == "config.istio.io/v1alpha2"
        metadata = each["metadata"]
        # Mixer's store wants both (config/store).
        key = f"{metadata['name']}.{each['kind']}.{metadata['namespace']}"
        kinds.setdefault(each["kind"], {})[key] = each["spec"]
    snapshot = Snapshot(vocabulary=dict(STOCK_ATTRIBUTES))
    for spec in kinds.get("attributemanifest", {}).values():
        for name, attribute in spec["attributes"].items():
            snapshot.vocabulary[name] = attribute["valueType"]
    for reads, kind in (
        (_read_template, "template"),
        (_read_adapter, "adapter"),
        (_read_handler, "handler"),
        (_read_instance, "instance"),
        (_read_rule, "rule"),
    ):
        for key, spec in kinds.get(kind, {}).items():
            try:
                reads(snapshot, key, spec)
            except (DescriptorError, ExpressionError) as error:
                snapshot.errors.append(f"{key}: {error}")
    return snapshot


def _find(table: Mapping[str, Any], reference: str, kind: str, owner: str) -> Any:
    """By `name` in the owner's namespace, by `name.namespace`, or by the full name.

    ephemeral.go: getCanonicalRef.
    """
    namespace = owner.rpartition(".")[2]
    name, _, rest = reference.partition(".")
    for key in (reference, f"{reference}.{kind}.{namespace}", f"{name}.{kind}.{rest}"):
        if key in table:
            return table[key]
    return None


def _read_template(snapshot: Snapshot, key: str, spec: Manifest) -> None:
    """config/descriptorUtil.go: GetTmplDescriptor, validateTmplName."""
    descriptors = read_descriptors(spec["descriptor"])
    marked = [file for file in descriptors.files if TEMPLATE_VARIETY in read_options(file)]
    extension = "istio.mixer.adapter.model.v1beta1.template_variety"
    if not marked:
        raise DescriptorError(f"there has to be one proto file that has the extension {extension}")
    if len(marked) > 1:
        raise DescriptorError(f"{[file.name for file in marked]}, both have the option {extension}")
    options = read_options(marked[0])
    name = options.get(TEMPLATE_NAME)
    if not isinstance(name, bytes):
        raise DescriptorError(f"proto files {marked[0].name} is missing required template_name")
    if not re.fullmatch("[a-zA-Z]+", name.decode()):
        raise DescriptorError(f"the template name '{name.decode()}' must match ^[a-zA-Z]+$")
    variety = options[TEMPLATE_VARIETY]
    assert isinstance(variety, int)
    snapshot.templates[key] = Template(key, marked[0].package, variety, descriptors)


def _read_adapter(snapshot: Snapshot, key: str, spec: Manifest) -> None:
    """ephemeral.go: processDynamicAdapterConfigs; descriptorUtil.go: GetAdapterCfgDescriptor."""
    descriptors, package = None, ""
    if spec["config"]:
        descriptors = read_descriptors(spec["config"])
        holding = [
            file
            for file in descriptors.files
            if any(message.name == "Params" for message in file.message_type)
        ]
        if not holding:
            raise DescriptorError(
                "cannot find message named 'Params' in the adapter configuration descriptor"
            )
        package = holding[-1].package
    templates = []
    for reference in spec["templates"]:
        template = _find(snapshot.templates, reference, "template", key)
        if template is None:
            raise DescriptorError(f"unable to find template '{reference}'")
        templates.append(template)
    snapshot.adapters[key] = Adapter(
        tuple(templates), spec.get("session_based", False), descriptors, package
    )


def _read_handler(snapshot: Snapshot, key: str, spec: Manifest) -> None:
    """ephemeral.go: processDynamicHandlerConfigs."""
    adapter = _find(snapshot.adapters, spec["adapter"], "adapter", key)
    if adapter is None:
        raise DescriptorError(f"adapter '{spec['adapter']}' not found")
    connection = spec["connection"]
    authentication = connection.get("authentication")
    if authentication is not None:
        _check_authentication(authentication)
    config = None
    if adapter.params is not None and not adapter.session_based:
        data = write_params(adapter.params, f".{adapter.package}.Params", spec.get("params", {}))
        config = (f"type.googleapis.com/{adapter.package}.Params", data)
    timeout = connection.get("timeout")
    snapshot.handlers[key] = Handler(
        key, adapter, connection["address"], timeout and float(timeout.removesuffix("s")), config
    )


def _check_authentication(authentication: Manifest) -> None:
    """TLS without a source of tokens, or an empty block, drops the handler (dynamic/auth.go)."""
    if not authentication.keys() & {"tls", "mutual"}:
        raise DescriptorError("unexpected authentication type")
    tls = authentication.get("tls")
    if tls is not None and not tls.keys() & {"tokenPath", "oauth"}:
        raise DescriptorError("unexpected tls token source type")


def _read_instance(snapshot: Snapshot, key: str, spec: Manifest) -> None:
    """ephemeral.go: processDynamicInstanceConfigs."""
    template = _find(snapshot.templates, spec["template"], "template", key)
    if template is None:
        raise DescriptorError(f"template '{spec['template']}' not found")
    params = {**spec.get("params", {}), "name": f'"{key}"'}
    encode = build_instance(
        template.descriptors, f".{template.package}.InstanceMsg", params, snapshot.vocabulary
    )
    snapshot.instances[key] = Instance(key, template, encode)


def _read_rule(snapshot: Snapshot, key: str, spec: Manifest) -> None:
    """ephemeral.go: processRuleConfigs."""
    match = None
    if spec.get("match"):
        match = compile_expression(spec["match"], snapshot.vocabulary)
        if match.type != "BOOL":
            raise ExpressionError(
                f"expression '{spec['match']}' evaluated to type {match.type}, expected type BOOL"
            )
    actions = []
    for action in spec["actions"]:
        handler = _find(snapshot.handlers, action["handler"], "handler", key)
        if handler is None:
            snapshot.errors.append(f"{key}: Handler not found: handler='{action['handler']}'")
            continue
        instances: list[Instance] = []
        for reference in action["instances"]:
            instance = _find(snapshot.instances, reference, "instance", key)
            said = None
            if instance is None:
                said = f"Instance not found: instance='{reference}'"
            elif instance in instances:
                said = "action specified the same instance multiple times"
            elif instance.template not in handler.adapter.templates:
                said = f"instance '{reference}' is of a template which is not supported"
            if said is None:
                instances.append(instance)
            else:
                snapshot.errors.append(f"{key}: {said}")
        if instances:
            actions.append((handler, tuple(instances)))
    if actions:
        namespace = key.rpartition(".")[2]
        snapshot.rules.append(Rule(key, namespace, match, tuple(actions)))
    else:
        snapshot.errors.append(f"{key}: No valid actions found in rule")
