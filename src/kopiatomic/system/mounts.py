"""The mount table: by getfsstat(2), or through mount(8) where there is no such call."""

from __future__ import annotations

import json
import sys

from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.command import CommandFailed, Door, reason_of
from kopiatomic.system.machine import Mount

if TYPE_CHECKING:
    from typing import Any

_KEPT = ("noexec", "nosuid", "nosymfollow")


def table(door: Door) -> list[Mount]:
    """Return everything that is mounted, in the order in which it was mounted.

    getfsstat(2) with MNT_NOWAIT asks no file system, so none that does not answer
    holds us up. mount(8) hides nullfs mounts of snapshots unless asked with -v, and
    only its libxo output can be told apart when a mount point holds blanks or
    newlines. Raises CommandFailed if that fails or answers something else.
    """
    if door.kernel is not None:
        door.show(("getfsstat",))
        try:
            return door.kernel.mounts()
        except OSError as error:
            raise CommandFailed(("getfsstat",), reason_of(error)) from error
    argv = ("mount", "-v", "--libxo", "json")
    return parse(argv, door.run(argv, time_limit=60.0).stdout)


def parse(argv: tuple[str, ...], text: str) -> list[Mount]:
    """Turn the answer of ``mount -v --libxo json`` into mounts.

    libxo leaves tabs in strings as they are, which strict JSON forbids.
    Raises CommandFailed if the text is not such an answer.
    """
    try:
        entries = json.loads(text, strict=False, object_hook=_mount)["mount"]["mounted"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CommandFailed(argv, "printed something that is not a mount table") from error
    if not isinstance(entries, list) or not all(isinstance(each, Mount) for each in entries):
        raise CommandFailed(argv, "printed something that is not a mount table")
    return entries


def _mount(found: dict[str, Any]) -> Mount | dict[str, Any]:
    """Turn what describes a mount into one, as soon as it is read: there may be very many."""
    if "fstype" not in found:
        return found
    words = found.get("opts", ())
    return Mount(
        special=str(found["special"]),
        point=str(found["node"]),
        type=sys.intern(str(found["fstype"])),
        read_only="read-only" in words,
        local="local" in words,
        options=tuple(word for word in _KEPT if word in words),
    )
