"""The keys of encrypted datasets: only whether there is one, of the right size."""

from __future__ import annotations

import sys

# What a key of each form has to be long: at least, and at most.
SIZES = {"passphrase": (8, 512), "hex": (64, 64), "raw": (32, 32)}
FILE = "file://"


def hindrance(form: str, place: str) -> str:
    """Why no key can be read, in the words of zfs(8); nothing if one was."""
    try:
        key = _read(form, place)
    except OSError as error:
        return f"Failed to open key material file: {error.strerror}"
    least, most = SIZES[form]
    if not key and form == "passphrase":
        return "encryption failure"
    name = {"passphrase": "Passphrase", "hex": "Hex key", "raw": "Raw key"}[form]
    wanted = f"min {least}" if form == "passphrase" else f"expected {least}"
    if len(key) < least:
        return f"{name} too short ({wanted})."
    wanted = f"max {most}" if form == "passphrase" else f"expected {most}"
    return f"{name} too long ({wanted})." if len(key) > most else ""


def _read(form: str, place: str) -> bytes:
    if place.startswith(FILE):
        with open(place.removeprefix(FILE), "rb") as file:
            key = file.read()
    else:
        key = sys.stdin.buffer.readline()
    return key if form == "raw" else key.rstrip(b"\n")
