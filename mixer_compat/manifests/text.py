"""Writes manifests as YAML, after a text on how Mixer treats mistakes and how to see them."""

from __future__ import annotations

from typing import Final

import yaml

from mixer_compat.manifests.objects import Manifest

_TURN_ON: Final = {
    ("1.1", "1.2", "1.3"): "helm template ... --set global.disablePolicyChecks=false",
    ("1.4", "1.5"): (
        "istioctl manifest apply --set values.global.disablePolicyChecks=false "
        "--set values.pilot.policy.enabled=true"
    ),
    ("1.6", "1.7"): (
        "istioctl install --set meshConfig.disablePolicyChecks=false "
        "--set values.pilot.policy.enabled=true"
    ),
}

_HEAD: Final = """\
Objects for the Mixer of Istio {istio}, made by `extauthz mixer-manifests`.

MIXER FAILS OPEN. Mixer ignores an object that it cannot use, with a line in its log; rules that
name this object have no effect, and requests that they should check are ALLOWED. After each
`kubectl apply`:

1. Policy checks must be on: this must print `disablePolicyChecks: false`, and policyCheckFailOpen
   must be false, if it is there.
     kubectl -n {namespace} get configmap istio -o jsonpath='{{.data.mesh}}' | grep -i policyCheck
   Turn them on with
     {turn_on}
2. Mixer must have accepted all objects: this must print nothing.
     kubectl -n {namespace} logs deployment/istio-policy -c mixer --since=2m \\
       | grep -iE 'error|unable|not found|no valid'
3. A request without a credential must be denied: {expectation}.
     curl -si http://YOUR-INGRESS/YOUR-API

When the settings or the places of credentials in the catalog change, make these objects again:
Mixer sends the adapter only what the instances name."""

_ALL_SERVICES: Final = """

The rule applies to each HTTP request that reaches a service in the mesh; a request that the
catalog has no API for is denied. To check only some services, name them with --service."""

_QUOTA: Final = """

Limits are asked for by quota instances. While a check is answered from a proxy's cache, that
proxy takes in advance what it expects to need, at least 10 at a time, and spends that by itself:
limits are then only as exact as that. Mixer grants a quota that it does not know: send more
requests than a limit allows, and check that they get 429."""


def render_manifests(
    manifests: list[Manifest], *, istio: str, namespace: str, denied_with: str
) -> str:
    """Writes YAML, one document for each object, after the warning as comments.

    Args:
        manifests: the objects.
        istio: the version of Istio, for the text.
        namespace: that of Mixer, for the text.
        denied_with: the answer to a client without a credential, in words.
    """
    turn_on = next(text for versions, text in _TURN_ON.items() if istio in versions)
    head = _HEAD.format(istio=istio, namespace=namespace, turn_on=turn_on, expectation=denied_with)
    kinds = {each["kind"] for each in manifests}
    if any("destination.service" not in match for match in _matches(manifests)):
        head += _ALL_SERVICES
    if "QuotaSpec" in kinds:
        head += _QUOTA
    comment = "".join(f"# {line}".rstrip() + "\n" for line in head.splitlines())
    documents = (
        yaml.safe_dump(each, sort_keys=False, allow_unicode=True, width=10_000)
        for each in manifests
    )
    return comment + "".join(f"---\n{document}" for document in documents)


def _matches(manifests: list[Manifest]) -> list[str]:
    return [each["spec"]["match"] for each in manifests if each["kind"] == "rule"]
