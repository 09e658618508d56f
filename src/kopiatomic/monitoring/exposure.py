"""What other users can do to what backups rely on: env files, wrappers, lists, our own state.

No text here ever contains a secret: of a file that has one, the path and the name
of the secret are told.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.clients import programs
from kopiatomic.clients.wrapper import script_of
from kopiatomic.monitoring.history import JobHistory
from kopiatomic.redact import secrets_in
from kopiatomic.state import Place
from kopiatomic.system.command import find, printable, quote
from kopiatomic.system.machine import ancestors

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class WatchedPath:
    """A file or directory that a backup relies on, as stat(2) shows it.

    ``role`` is ``env file``, ``executable`` (the client, a wrapper or a hook), ``list``
    (of what to back up), ``state directory``, or ``directory``, which leads to ``serves``.
    ``job`` is the job's label. ``secret`` is the name of a secret in a script that all users
    can read.
    """

    role: str
    path: str
    uid: int
    mode: int
    job: str | None = None
    serves: str = ""
    secret: str | None = None


def find_watched(jobs: Iterable[JobHistory]) -> list[WatchedPath]:
    """Return the files that jobs rely on, our state, and the directories that lead to them."""
    found: dict[str, WatchedPath] = {}
    for role, path, job in [*_state_paths(), *_job_paths(jobs)]:
        if path in found or not os.path.isabs(path):
            continue
        watched = _watched(role, path, job)
        if watched is None:
            continue
        found[path] = watched
        for directory in (each for hop in _hops(path) for each in ancestors(hop)[1:]):
            above = _watched("directory", directory, job, serves=path)
            if above is not None:
                found.setdefault(directory, above)
    return list(found.values())


def _state_paths() -> list[tuple[str, str, str | None]]:
    roots = [Place(program, "").root for program in programs()]
    return [("state directory", path, None) for path in (state.STATE_DIRECTORY, *roots)]


def _job_paths(jobs: Iterable[JobHistory]) -> list[tuple[str, str, str | None]]:
    """Return each job's env files, client, hooks and lists, as its last run had them."""
    paths: list[tuple[str, str, str | None]] = []
    for history in jobs:
        files = history.runs[-1].env_files if history.runs else ()
        paths += [("env file", file, history.place.label) for file in files]
        word = next((run.client for run in reversed(history.runs) if run.client), None)
        path = find(word) if word and "/" not in word else word
        if path:
            paths.append(("executable", path, history.place.label))
        if history.runs:
            paths += [("executable", hook, history.place.label) for hook in history.runs[-1].hooks]
            paths += [("list", file, history.place.label) for file in history.runs[-1].lists]
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


def _watched(role: str, path: str, job: str | None, serves: str = "") -> WatchedPath | None:
    """Return a file or directory as it is, or None if it is not there."""
    try:
        found = os.stat(path)
        secret = _open_secret(path, found) if role == "executable" else None
    except (OSError, ValueError):
        return None
    return WatchedPath(role, path, found.st_uid, found.st_mode, job, serves, secret)


def _open_secret(path: str, found: os.stat_result) -> str | None:
    """Return the name of the first secret in a script that all users can read, or None."""
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IROTH:
        return None
    above = ancestors(os.path.realpath(path))[1:]
    if not all(os.stat(directory).st_mode & stat.S_IXOTH for directory in above):
        return None
    return next((name for name, _ in secrets_in(script_of(path))), None)


# What that means


def exposures(watched: WatchedPath) -> list[tuple[str, str]]:
    """Say what other users can do to a file or directory, each time with what to do about it."""
    path = printable(watched.path)
    if watched.role == "directory":
        return _exposed_directory(watched, path)
    if watched.role == "executable":
        return _exposed_executable(watched, path)
    if watched.role == "list":
        return _exposed_list(watched, path)
    what = f"the {watched.role} {path}"
    found = []
    if watched.uid != 0:
        found.append((f"{what} does not belong to root", _command("chown", "root", watched.path)))
    if watched.mode & 0o077:
        mode = "700" if stat.S_ISDIR(watched.mode) else "600"
        text = f"other users can {_what_others_can(watched.mode)} {what}"
        found.append((text, _command("chmod", mode, watched.path)))
    return found


def _what_others_can(mode: int) -> str:
    can = [word for bits, word in ((0o044, "read"), (0o022, "write")) if mode & bits]
    return " and ".join(can) or ("enter" if stat.S_ISDIR(mode) else "execute")


def _exposed_executable(watched: WatchedPath, path: str) -> list[tuple[str, str]]:
    found = _exposed_to_writers(
        watched,
        f"root runs {path}, which does not belong to root",
        f"root runs {path}, which other users can write",
    )
    if watched.secret is not None:
        remedy = f"{quote(['chmod', '700', watched.path])}, or put it into an env file (-e)"
        found.append((f"other users can read {path}, and the {watched.secret} in it", remedy))
    return found


def _exposed_list(watched: WatchedPath, path: str) -> list[tuple[str, str]]:
    """Judge a list of what to back up: who can write it says what is, and what is not."""
    return _exposed_to_writers(
        watched,
        f"the list {path} does not belong to root: its owner can say what is backed up",
        f"other users can write the list {path}, and so say what is backed up",
    )


def _exposed_to_writers(
    watched: WatchedPath, by_owner: str, by_others: str
) -> list[tuple[str, str]]:
    """Return what is true of these two of a file, each with what to do about it."""
    found = []
    if watched.uid != 0:
        found.append((by_owner, _command("chown", "root", watched.path)))
    if watched.mode & _OTHERS_WRITE:
        found.append((by_others, _command("chmod", "go-w", watched.path)))
    return found


def _exposed_directory(watched: WatchedPath, path: str) -> list[tuple[str, str]]:
    """Judge a directory: who can write it can put something else where it leads."""
    serves = printable(watched.serves)
    elsewhere = f"move {serves} to a directory that only root can write"
    if watched.uid != 0:
        text = f"the directory {path} does not belong to root: its owner can replace {serves}"
        return [(text, elsewhere)]
    if watched.mode & _OTHERS_WRITE and not watched.mode & stat.S_ISVTX:
        text = f"other users can write the directory {path}, and so replace {serves}"
        return [(text, f"{quote(['chmod', 'go-w', watched.path])}, or {elsewhere}")]
    return []


def _command(*words: str) -> str:
    return f"check what is in it, then: {quote(words)}"
