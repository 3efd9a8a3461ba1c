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

MIXER FAILS OPEN. An object that Mixer cannot use is dropped with a line in its log, the rules
that name it lose their action, and requests that they should have checked are ALLOWED. After
each `kubectl apply`:

1. Policy checks must be on: this must print `disablePolicyChecks: false`, and nothing about
   policyCheckFailOpen but false.
     kubectl -n {namespace} get configmap istio -o jsonpath='{{.data.mesh}}' | grep -i policyCheck
   Turn them on with
     {turn_on}
2. Mixer must have taken everything: this must print nothing.
     kubectl -n {namespace} logs deployment/istio-policy -c mixer --since=2m \\
       | grep -iE 'error|unable|not found|no valid'
3. A request without a credential must be denied: {expectation}.
     curl -si http://YOUR-INGRESS/YOUR-API

When the settings or the places of credentials in the catalog change, make these objects again:
Mixer sends the adapter only what the instances name."""

_ALL_SERVICES: Final = """

The rule counts for each HTTP request that reaches a service in the mesh; what the catalog does
not know is denied. To check only some services, name them with --service."""

_QUOTA: Final = """

Limits are asked for by quota instances. While a check is answered from a proxy's cache, that
proxy takes what it expects to need ahead, at least 10 at a time, and spends it itself: limits
are then kept to that accuracy. A quota that Mixer does not know is granted: send more requests
than a limit allows, and see that they get 429."""


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
