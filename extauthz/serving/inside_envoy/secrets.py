"""Gives Envoy TLS material, and new material when its files have changed.

Envoy itself would accept a certificate and a key that do not belong together, and would not notice
files that are overwritten in place. So the files are read and checked here before Envoy gets them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from extauthz.serving.inside_envoy.bootstrap import write_secrets
from extauthz.serving.tls import TlsMaterial, TlsReloader

TLS_LOOK_S: Final = 1.0


def put_secrets(folder: Path, name: str, material: TlsMaterial) -> None:
    """Writes the material for Envoy, which watches for files that are moved into the folder."""
    for file, secret in write_secrets(name, material).items():
        new = folder / f"{file}.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(secret))
        new.rename(folder / file)


async def watch_tls(reloaders: Mapping[str, TlsReloader], folder: Path) -> None:
    """Gives Envoy changed files, checking every `TLS_LOOK_S` seconds, until it is cancelled.

    Args:
        reloaders: by the name of `find_secrets_name`.
        folder: the folder that Envoy watches.
    """
    while reloaders:
        await asyncio.sleep(TLS_LOOK_S)
        for name, reloader in reloaders.items():
            material = reloader.find_change()
            if material is not None:
                put_secrets(folder, name, material)
