"""Hands TLS material to an Envoy, and new material when its files have changed.

Envoy alone would take a certificate and a key that do not fit together, and would miss files that
are written in place. So the files are looked at here, and Envoy is given what was checked.
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
    """Hands the material to Envoy: it watches for files that are moved there."""
    for file, secret in write_secrets(name, material).items():
        new = folder / f"{file}.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(secret))
        new.rename(folder / file)


async def watch_tls(reloaders: Mapping[str, TlsReloader], folder: Path) -> None:
    """Looks at the files of each name every `TLS_LOOK_S`, until it is cancelled."""
    while reloaders:
        await asyncio.sleep(TLS_LOOK_S)
        for name, reloader in reloaders.items():
            material = reloader.find_change()
            if material is not None:
                put_secrets(folder, name, material)
