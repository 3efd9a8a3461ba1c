"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# No test is timed: a busy machine must not fail one.
settings.register_profile("extauthz", deadline=None)
settings.load_profile("extauthz")
