"""What is checked before anything is touched."""

import os
import re
import stat
from collections.abc import Sequence

from kopiatomic.backup.unmounted import ELSEWHERE, EMPTY, MISSING, OCCUPIED
from kopiatomic.errors import EX_NOINPUT, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, GivenUp, fits
from kopiatomic.system.machine import Dataset, volume_at

# A hook whose first word holds none of these names a program, and no shell syntax.
_SHELL_SYNTAX = r"[|&;<>()$`\\\"'*?\[\]#~=%{}!\n]"


def hooks(job: Job) -> None:
    """Refuse a hook that names a program which is not there or cannot be run.

    Not so the command of --notify, of which no backup depends.
    """
    for option, word in hook_programs(job._replace(notify=None)).items():
        if not os.access(word, os.X_OK) or os.path.isdir(word):
            what = "is not executable" if os.path.exists(word) else "does not exist"
            raise Refusal(f"the command of {option} cannot be run: {word} {what}", EX_UNAVAILABLE)


def hook_programs(job: Job) -> dict[str, str]:
    """Return the programs that hooks begin with, by option, of those that name a path."""
    hooks = {
        "-p": job.before, "-s": job.after_snapshot, "-q": job.after, "--notify": job.notify,
    }  # fmt: skip
    found = ((option, _program_in(text or "")) for option, text in hooks.items())
    return {option: word for option, word in found if word is not None}


def _program_in(text: str) -> str | None:
    """Return the program that a hook's text begins with, if that is a path; or None."""
    words = text.split()
    if not words or "/" not in words[0] or re.search(_SHELL_SYNTAX, words[0]):
        return None
    return words[0]


def resolve(job: Job) -> Job:
    """Return a job whose paths are real and absolute; raises Refusal where one is not there.

    In periodic(8)'s name the others are backed up all the same: what is gone is in ``gone``.
    """
    if job.periodic:
        job = _with_gone(job)
    found = targets(job)
    pairs = zip(found, map(job.origins.get, job.targets), strict=True)
    return job._replace(
        targets=found,
        origins={
            **{path: job.origins[path] for path in job.gone if path in job.origins},
            **{real: origin for real, origin in pairs if origin is not None},
        },
        live=live_directories(job),
        at=place_for_unseen(job),
    )


def _with_gone(job: Job) -> Job:
    """Return a job without the paths that are not there, unless that is all of it."""
    gone = [
        each for each in job.targets
        if each not in job.links and volume_at(each) is None and is_path(each)
        and not os.path.exists(each)
    ]  # fmt: skip
    if len(gone) == len(job.targets):
        return job
    rest = tuple(each for each in job.targets if each not in gone)
    paths = {each: os.path.abspath(each) for each in gone}
    found = {path: job.origins[each] for each, path in paths.items() if each in job.origins}
    return job._replace(
        targets=rest, gone=tuple(paths.values()), origins={**job.origins, **found}
    )


def live_directories(job: Job) -> tuple[str, ...]:
    """Return the real paths of the --live directories; raises Refusal."""
    for place in job.live:
        if not place.startswith("/") or not os.path.isdir(place):
            raise Refusal(f"--live {place}: no such directory; give an absolute path", EX_NOINPUT)
    return tuple(dict.fromkeys(os.path.realpath(place) for place in job.live))


def place_for_unseen(job: Job) -> str | None:
    """Return the real path of the directory that --at names, or None; raises Refusal."""
    if job.at is None:
        return None
    if not job.at.startswith("/") or not os.path.isdir(job.at):
        raise Refusal(f"--at {job.at}: no such directory; give an absolute path", EX_NOINPUT)
    return os.path.realpath(job.at)


def look(path: str) -> str:
    """Say what a path leads to, in unmounted.Sight's words; what may not be read is empty."""
    try:
        if os.path.realpath(path) != path:
            return ELSEWHERE
        with os.scandir(path) as entries:
            return EMPTY if next(entries, None) is None else OCCUPIED
    except FileNotFoundError:
        return MISSING
    except PermissionError:
        return EMPTY
    except OSError:
        return ELSEWHERE


def is_path(target: str) -> bool:
    """Say whether a target is a path, and no dataset."""
    return target.startswith(("/", "./", "../")) or target in (".", "..")


def targets(job: Job) -> tuple[str, ...]:
    """Return the targets, paths among them real and absolute; raises Refusal.

    The device of a volume stands for the volume.
    """
    return tuple(_told_from(job, target) for target in job.targets)


def _told_from(job: Job, target: str) -> str:
    """Return a target resolved; the refusal of one in a list says where it stands."""
    try:
        return target if target in job.links else _resolved(target)
    except Refusal as refusal:
        raise Refusal(f"{job.place_of(target)}{refusal}", refusal.status) from None


def _resolved(target: str) -> str:
    volume = volume_at(target)
    if volume is not None:
        return volume
    return _real(target) if is_path(target) else target


def _real(path: str) -> str:
    """Return the real path of what a backup can be made of; raises Refusal."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise Refusal(f"the path '{path}' does not exist", EX_NOINPUT) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise Refusal(f"'{path}' is neither a directory nor a plain file", EX_NOINPUT)
    return os.path.realpath(path)


def list_datasets(door: Door, names: Sequence[str] = (), recursive: bool = False) -> list[Dataset]:
    """Return the machine's datasets, or at least those with ``names``.

    With ``recursive`` those below them as well. All are listed where one of the names is
    not known, so that it can be told. Raises Refusal where there is no ZFS, CommandFailed
    if they cannot be listed.
    """
    if names and fits(names):
        try:
            return zfs.list_datasets(door, names, recursive)
        except GivenUp:
            raise
        except CommandFailed:
            pass
    try:
        return zfs.list_datasets(door)
    except CommandFailed as error:
        if _module_missing(door, "zfs"):
            raise Refusal(
                'there is no ZFS in this kernel; kldload zfs, or zfs_enable="YES" in rc.conf',
                EX_UNAVAILABLE,
            ) from error
        raise


def nullfs_missing(door: Door) -> bool:
    """Say whether the kernel has no nullfs, which it loads by itself where it can."""
    return _module_missing(door, "nullfs")


def _module_missing(door: Door, name: str) -> bool:
    try:
        return door.run(["kldstat", "-q", "-m", name], check=False).status != 0
    except CommandFailed:
        return False
