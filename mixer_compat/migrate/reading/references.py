"""Resolves the names between objects as Mixer did, and lists the actions of rules.

A name is ``name``, ``name.namespace``, ``name.kind.namespace``, or in the form before Istio 1.1
``name.kind``. Handlers are the ``handler`` objects and, as before Istio 1.1, objects of an
adapter's own kind. The same holds for instances and templates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from mixer_compat.migrate.reading.conditions import ALWAYS, Alternative, Unclear, read_match
from mixer_compat.migrate.reading.expressions import ExpressionError
from mixer_compat.migrate.reading.objects import MixerObject, Part
from mixer_compat.migrate.report import Outcome

ROOT_NAMESPACE: Final = "istio-system"
"""The namespace whose rules hold for the whole mesh (Mixer's --configDefaultNamespace)."""

_NEITHER: Final = frozenset(
    {
        "rule", "template", "adapter", "attributemanifest", "HTTPAPISpec", "HTTPAPISpecBinding",
        "QuotaSpec", "QuotaSpecBinding",
    }
)  # fmt: skip
"""Kinds that are neither handlers nor instances."""

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Handler:
    """A handler that rules call. `adapter` is the adapter's name without its namespace."""

    object: MixerObject
    adapter: str
    params: Part | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instance:
    """An instance that rules send. `template` is the template's name without its namespace."""

    object: MixerObject
    template: str
    params: Part | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Action:
    """One handler with its instances, called for requests that match one of the alternatives.

    Attributes:
        match: the rule's match; None without one.
        namespace: the namespace whose requests the rule is for; empty for the whole mesh.
    """

    rule: MixerObject
    part: Part
    match: Part | None
    namespace: str
    alternatives: tuple[Alternative, ...]
    handler: Handler
    instances: tuple[Instance, ...]

    def tell_unclear(self, outcome: Outcome, about: str, effect: str) -> None:
        """Reports a condition of the match that was left out.

        Args:
            about: names the condition.
            effect: the consequence, as a sentence for the report.
        """
        (self.match or self.part).remark(outcome, f"the condition on {about} is left out: {effect}")


class Objects:
    """All objects, by kind and name."""

    def __init__(self, objects: Iterable[MixerObject]) -> None:
        self.all = tuple(objects)
        self._handlers: dict[tuple[str, str], dict[str, Handler]] = {}
        """By name and namespace, then by kind in lower case."""
        self._instances: dict[tuple[str, str], dict[str, Instance]] = {}
        for found in self.all:
            key, kind = (found.name, found.namespace), found.kind.lower()
            spec = found.spec
            if found.kind == "handler":
                adapter = spec.text("compiledAdapter") or spec.text("adapter")
                self._handlers.setdefault(key, {})[kind] = Handler(
                    object=found, adapter=_short(adapter), params=spec.find("params")
                )
            elif found.kind == "instance":
                template = spec.text("compiledTemplate") or spec.text("template")
                self._instances.setdefault(key, {})[kind] = Instance(
                    object=found, template=_short(template), params=spec.find("params")
                )
            elif found.kind not in _NEITHER:
                # Before Istio 1.1 each adapter and each template had a kind of its own. Only the
                # rules show which of the two a kind belongs to.
                self._handlers.setdefault(key, {})[kind] = Handler(
                    object=found, adapter=kind, params=spec
                )
                self._instances.setdefault(key, {})[kind] = Instance(
                    object=found, template=kind, params=spec
                )

    def of_kind(self, kind: str) -> list[MixerObject]:
        """The objects of one kind, in their order."""
        return [found for found in self.all if found.kind == kind]

    def list_handlers(self) -> list[Handler]:
        """All handlers."""
        return [handler for of_name in self._handlers.values() for handler in of_name.values()]

    def find_handler(self, name: str, namespace: str) -> Handler | None:
        """Finds the handler of a name; `namespace` is that of the object which has the name."""
        return _find(self._handlers, name, namespace)

    def find_instance(self, name: str, namespace: str) -> Instance | None:
        """Finds the instance of a name; `namespace` is that of the object which has the name."""
        return _find(self._instances, name, namespace)

    def list_actions(self) -> list[Action]:
        """The actions of all rules; unreadable ones and those without an effect are reported."""
        return [action for rule in self.of_kind("rule") for action in self._actions_of(rule)]

    def _actions_of(self, rule: MixerObject) -> Iterable[Action]:
        match = rule.spec.find("match")
        alternatives = ALWAYS
        if match is not None:
            try:
                alternatives = read_match(match.read())
            except ExpressionError as exc:
                match.tell(
                    Outcome.STRICTER, f"is not an expression that can be read: it {exc}; the rule is taken "
                    "to apply to every request",
                )  # fmt: skip
                alternatives = ((Unclear(about="the match"),),)
            if not alternatives:
                match.tell(Outcome.OBSOLETE, "is never true, so the rule did nothing")
                rule.spec.mark()
                return
        for key in ("requestHeaderOperations", "responseHeaderOperations"):
            operations = rule.spec.find(key)
            if operations is not None:
                operations.tell(
                    Outcome.LOST, "headers are set by Istio itself: use headers of a VirtualService"
                )
        namespace = "" if rule.namespace == ROOT_NAMESPACE else rule.namespace
        for part in rule.spec.list_parts("actions"):
            name = part.text("handler")
            part.text("name")
            handler = self.find_handler(name, rule.namespace)
            if handler is None:
                part.tell(
                    Outcome.LOST,
                    f"there is no handler {name!a} among the objects, so the requests "
                    "that it refused are not refused now. Export the handlers of the "
                    f"cluster, too: {write_export('handlers')}",
                )
                continue
            instances: list[Instance] = []
            for each in part.list_parts("instances"):
                named = each.read()
                instance = self.find_instance(named, rule.namespace)
                if instance is None:
                    each.tell(
                        Outcome.LOST,
                        f"there is no instance {named!a} among the objects. Export the "
                        f"instances of the cluster, too: {write_export('instances')}",
                    )
                else:
                    instances.append(instance)
            yield Action(
                rule=rule,
                part=part,
                match=match,
                namespace=namespace,
                alternatives=alternatives,
                handler=handler,
                instances=tuple(instances),
            )


def write_export(kinds: str) -> str:
    """The command that exports objects of a cluster; `kinds` are plurals, separated by commas."""
    resources = ",".join(f"{kind}.config.istio.io" for kind in kinds.split(","))
    return f"kubectl get {resources} -A -o yaml"


def _find(
    by_name: dict[tuple[str, str], dict[str, _Found]], name: str, namespace: str
) -> _Found | None:
    parts = name.split(".")
    wanted: list[tuple[str, str | None, str]] = []
    match parts:
        case [short]:
            wanted = [(short, None, namespace)]
        case [short, second]:
            wanted = [(short, None, second), (short, second.lower(), namespace)]
        case [short, second, of]:
            wanted = [(short, second.lower(), of)]
        case _:
            pass
    for called, wanted_kind, place in wanted:
        of_name = by_name.get((called, place), {})
        for kind in (wanted_kind,) if wanted_kind else ("handler", "instance", *of_name):
            if kind in of_name:
                return of_name[kind]
    return None


def _short(name: str) -> str:
    return name.partition(".")[0].lower()
