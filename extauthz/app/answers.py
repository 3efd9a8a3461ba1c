"""Makes the style of answers from the settings, and what explains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extauthz.answers.backend_jwt_style import BackendJwtStyle
from extauthz.answers.denial import DenialStyle
from extauthz.answers.upstream import UpstreamStyle
from extauthz.app.core import Core
from extauthz.envoy.authorization import AnswerStyle
from extauthz.inspection.explanation import Explainer
from extauthz.ports import Clock
from extauthz.settings.tree import ResponseSettings, Settings
from extauthz.telemetry.decision_log.masking import Masks

if TYPE_CHECKING:
    from extauthz.answers.backend_jwt import BackendJwtSigner


def read_answer_style(responses: ResponseSettings, clock: Clock) -> AnswerStyle:
    """Reads the style of answers.

    Raises:
        ConfigError: the key of the backend JWT cannot be used.
    """
    return AnswerStyle(
        denial=DenialStyle(
            profile=responses.profile,
            realm=responses.realm,
            limit_headers=responses.rate_limit_headers,
        ),
        upstream=UpstreamStyle(
            identity_headers=responses.identity_headers,
            limit_headers=responses.rate_limit_headers,
            backend_jwt=_read_backend_jwt(responses, clock),
        ),
        error_response=responses.error_response,
    )


def make_explainer(core: Core, settings: Settings, masks: Masks | None = None) -> Explainer:
    """What explains the decisions of a service. Without masks, users and consumer keys are shown.

    Raises:
        ConfigError: as for `read_answer_style`.
    """
    return Explainer(
        make_pipeline=core.make_pipeline,
        catalog=lambda: core.refresher.catalog,
        style=read_answer_style(settings.responses, core.clock),
        places=core.places,
        clock=core.clock,
        masks=masks,
    )


def _read_backend_jwt(responses: ResponseSettings, clock: Clock) -> BackendJwtSigner | None:
    wanted = responses.backend_jwt
    if wanted is None:
        return None
    from extauthz.answers.backend_jwt import BackendJwtSigner, read_private_key  # brings PyJWT

    style = BackendJwtStyle(
        header=wanted.header,
        issuer=wanted.issuer,
        dialect=wanted.dialect,
        algorithm=wanted.algorithm,
        key_id=wanted.key_id,
        ttl_us=wanted.ttl,
    )
    key = read_private_key(wanted.private_key_file, wanted.algorithm)
    return BackendJwtSigner(key=key, style=style, clock=clock)
