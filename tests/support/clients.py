"""The real restic, kopia and rest-server, as tests/prepare.py left them or as PATH has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from support.patience import PATIENCE

FOUND = Path(__file__).resolve().parents[2] / ".venv" / "clients.json"


@dataclass(frozen=True)
class Client:
    """A client's program and version, or the reason why there is none."""

    path: Path | None
    version: str | None
    reason: str | None = None


def restic() -> Path | None:
    """The restic to run, None where there is none."""
    return find("restic").path


def kopia() -> Path | None:
    """The kopia to run, None where there is none."""
    return find("kopia").path


def rest_server() -> Path | None:
    """The rest-server to run, None where there is none."""
    return find("rest-server").path


def version(name: str) -> str | None:
    """The version of the client as in `0.18.1`, None where there is none."""
    return find(name).version


def missing(name: str) -> str | None:
    """Why there is no such client, None where there is one."""
    return find(name).reason


@lru_cache
def find(name: str) -> Client:
    """The client that its variable names, else the prepared one, else PATH's."""
    named = os.environ.get(variable(name))
    if named:
        return look(named, f"{variable(name)} names {named}, which does not run")
    try:
        found = json.loads(FOUND.read_text())
    except (OSError, ValueError):
        found = {}
    entry = found.get(name)
    if entry and os.access(entry["path"], os.X_OK):
        return Client(Path(entry["path"]), entry["version"])
    return look(name, found.get("reasons", {}).get(name) or f"no {name} on this machine")


def variable(name: str) -> str:
    """The variable by which the user names a client, as in KOPIATOMIC_RESTIC."""
    return "KOPIATOMIC_" + name.upper().replace("-", "_")


def look(name: str, reason: str) -> Client:
    """The program of that name or path, if it runs and says its version; else the reason."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/bin")
    said = _ask(path, "--version") or _ask(path, "version") if path else None
    if path is None or said is None:
        return Client(None, None, reason)
    return Client(Path(path).resolve(), said)


def _ask(path: str, argument: str) -> str | None:
    try:
        answer = subprocess.run(
            [path, argument], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=30 * PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\d+(\.\d+)+", answer.stdout)
    return match[0] if match and not answer.returncode else None
