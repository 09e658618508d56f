"""Which restic snapshot a backup continues, when the selection has changed.

restic looks for an earlier snapshot that holds all of today's paths. When a
dataset was added there is none, and it would read every file again; then we
name the snapshot that has most of the paths.
"""

import json
import os
from collections.abc import Mapping, Sequence

from kopiatomic.clients.base import has_option, option_value
from kopiatomic.clients.invocation import base_command
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.machine import lies_in

# Options with which the user decides about the parent.
_DECIDED = ("--parent", "--force", "-f", "--group-by", "-g")

TIME_LIMIT = 600.0


def find(
    door: Door,
    job: Job,
    paths: Sequence[str],
    last_paths: Sequence[str] | None,
    environment: Mapping[str, str],
) -> str | None:
    """Return the snapshot to name as parent, or None to leave it to restic.

    ``last_paths`` are those of the job's last good run. While they stay the same
    nothing is asked. A repository that does not answer is the backup's to report.
    """
    given = [*job.command, *job.options]
    if job.program != "restomic" or job.plain or has_option(given, *_DECIDED):
        return None
    if last_paths is not None and set(paths) <= set(last_paths):
        return None
    try:
        argv = [*base_command(job), "--no-lock", "snapshots", "--json"]
        answer = door.run(argv, environment=environment, time_limit=TIME_LIMIT).stdout
        return choose(json.loads(answer), paths, _host(given))
    except (Refusal, CommandFailed, ValueError, KeyError, TypeError):
        return None


def _host(words: Sequence[str]) -> str:
    return option_value(words, "--host", "-H") or os.uname().nodename


def choose(
    snapshots: Sequence[Mapping[str, object]], paths: Sequence[str], host: str
) -> str | None:
    """Return the id of the newest of this host's snapshots that share most paths.

    None if no snapshot shares any, or if one holds them all: that one restic
    finds by itself.
    """
    best: tuple[int, str, str] | None = None
    for snapshot in snapshots:
        theirs = snapshot["paths"]
        if snapshot.get("hostname") != host or not isinstance(theirs, list):
            continue
        if set(paths) <= set(theirs):
            return None
        shared = sum(any(_overlap(path, other) for other in theirs) for path in paths)
        candidate = (shared, str(snapshot["time"]), str(snapshot["id"]))
        if shared and (best is None or candidate > best):
            best = candidate
    return best[2] if best else None


def _overlap(path: str, other: str) -> bool:
    return lies_in(path, other) or lies_in(other, path)
