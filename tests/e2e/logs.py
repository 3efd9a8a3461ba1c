"""Searches what the services have logged for what must never be there."""

from __future__ import annotations

from tests.e2e.running import Deployment


def find_leaks(deployment: Deployment) -> list[str]:
    """Log lines of extauthz that hold a secret, or begin a traceback. At level debug."""
    return [
        f"{file}:{number}: {line}"
        for file in deployment.log_files
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if line.startswith("Traceback")
        or any(secret in line for secret in deployment.world.secrets)
    ]
