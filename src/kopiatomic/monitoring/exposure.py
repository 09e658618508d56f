"""Who else can reach what backups rely on: env files, wrappers, hooks, our own state.

No text here ever holds a secret: of a file that has one, the path and the name
of the variable are told.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.monitoring.history import PROGRAMS, Past
from kopiatomic.redact import script_at, secrets_in
from kopiatomic.state import Place
from kopiatomic.system.command import find, printable, quote
from kopiatomic.system.machine import ancestors

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Thing:
    """A file or directory that a backup relies on, as stat(2) shows it.

    ``role`` is ``env file``, ``program``, ``state directory`` or ``directory``, which
    leads to ``serves``. ``secret`` is the name of a secret that stands in the
    file for all to read.
    """

    role: str
    path: str
    uid: int
    mode: int
    job: str | None = None
    serves: str = ""
    secret: str | None = None


def find_things(pasts: Iterable[Past]) -> list[Thing]:
    """Return the files that jobs rely on, our state, and the directories that lead there."""
    found: dict[str, Thing] = {}
    for role, path, job in [*_state_paths(), *_job_paths(pasts)]:
        if path in found or not os.path.isabs(path):
            continue
        thing = _thing(role, path, job)
        if thing is None:
            continue
        found[path] = thing
        for directory in (each for hop in _hops(path) for each in ancestors(hop)[1:]):
            above = _thing("directory", directory, job, serves=path)
            if above is not None:
                found.setdefault(directory, above)
    return list(found.values())


def _state_paths() -> list[tuple[str, str, str | None]]:
    roots = [Place(program, "").root for program in PROGRAMS]
    return [("state directory", path, None) for path in (state.STATE_DIRECTORY, *roots)]


def _job_paths(pasts: Iterable[Past]) -> list[tuple[str, str, str | None]]:
    """Return each job's env file and programs, as its newest run that knows them had them."""
    paths: list[tuple[str, str, str | None]] = []
    for past in pasts:
        if past.runs and past.runs[-1].env_file is not None:
            paths.append(("env file", past.runs[-1].env_file, past.label))
        word = next((run.program for run in reversed(past.runs) if run.program), None)
        path = find(word) if word and "/" not in word else word
        if path:
            paths.append(("program", path, past.label))
        if past.runs:
            paths += [("program", hook, past.label) for hook in past.runs[-1].hooks]
    return paths


def _hops(path: str) -> list[str]:
    """Return ``path`` and what it leads to by symbolic links, one after the other."""
    hops = [os.path.normpath(path)]
    with suppress(OSError):
        while os.path.islink(hops[-1]) and len(hops) < 32:
            target = os.path.join(os.path.dirname(hops[-1]), os.readlink(hops[-1]))
            hops.append(os.path.normpath(target))
    real = os.path.realpath(path)
    return hops if real in hops else [*hops, real]


def _thing(role: str, path: str, job: str | None, serves: str = "") -> Thing | None:
    """Return a file or directory as it is, or None if it is not there."""
    try:
        found = os.stat(path)
        secret = _open_secret(path, found) if role == "program" else None
    except (OSError, ValueError):
        return None
    return Thing(role, path, found.st_uid, found.st_mode, job, serves, secret)


def _open_secret(path: str, found: os.stat_result) -> str | None:
    """Return the variable whose value stands in a script that everybody can read, if any."""
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IROTH:
        return None
    above = ancestors(os.path.realpath(path))[1:]
    if not all(os.stat(directory).st_mode & stat.S_IXOTH for directory in above):
        return None
    return next((name for name, _ in secrets_in(script_at(path))), None)


# What that means


def exposures(thing: Thing) -> list[tuple[str, str]]:
    """Say what others can do to a file or directory, each time with what to do about it."""
    if thing.role == "directory":
        return _exposed_directory(thing)
    path = printable(thing.path)
    if thing.role == "program":
        return _exposed_program(thing, path)
    what = f"the {thing.role} {path}"
    found = []
    if thing.uid != 0:
        found.append((f"{what} does not belong to root", _command("chown", "root", thing.path)))
    if thing.mode & 0o077:
        mode = "700" if stat.S_ISDIR(thing.mode) else "600"
        found.append((f"others can get at {what}", _command("chmod", mode, thing.path)))
    return found


def _exposed_program(thing: Thing, path: str) -> list[tuple[str, str]]:
    found = []
    if thing.uid != 0:
        found.append(
            (f"root runs {path}, which is not root's own", _command("chown", "root", thing.path))
        )
    if thing.mode & _OTHERS_WRITE:
        found.append(
            (f"root runs {path}, which others can write", _command("chmod", "go-w", thing.path))
        )
    if thing.secret is not None:
        remedy = f"{quote(['chmod', '700', thing.path])}, or put it into an env file (-e)"
        found.append((f"others can read {path}, and the {thing.secret} in it", remedy))
    return found


def _exposed_directory(thing: Thing) -> list[tuple[str, str]]:
    """Judge a directory: who can write it can put something else where it leads."""
    path, serves = printable(thing.path), printable(thing.serves)
    text = f"{path} can be written by others, who could replace {serves}"
    elsewhere = f"move {serves} to a directory that only root can write"
    if thing.uid != 0:
        return [(f"{path} is not root's own, so others could replace {serves}", elsewhere)]
    if thing.mode & _OTHERS_WRITE and not thing.mode & stat.S_ISVTX:
        return [(text, f"{quote(['chmod', 'go-w', thing.path])}, or {elsewhere}")]
    return []


def _command(*words: str) -> str:
    return f"look at what is in it, then: {quote(words)}"


