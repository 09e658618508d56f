"""What a volume is read from: a clone of its snapshot.

It is made right before the first client run that needs it and destroyed right after the last
one; see system/volumes.py.
"""

from kopiatomic.backup import own
from kopiatomic.backup.client_runs import VOLUME, Called, ClientRun
from kopiatomic.backup.names import clone_of
from kopiatomic.backup.selection import Captured
from kopiatomic.backup.work import Failed, Work
from kopiatomic.errors import EX_CANTCREAT, EX_OSERR
from kopiatomic.system import fingerprint, volumes, zfs
from kopiatomic.system.command import CommandFailed, reason_of


def open_source(work: Work, called: Called) -> None:
    """Make what a client run reads from, where that is a clone; raises Failed."""
    run = called.run
    volume = _volume_of(work, run)
    if volume is None:
        return
    try:
        if volume.still:
            called.size = volumes.facts_of(work.task.door, [volume.dataset])[volume.dataset].size
        else:
            called.size = _clone(work, volume)
    except CommandFailed as error:
        message = f"it cannot be read: {error}"
        raise Failed(message, EX_CANTCREAT) from error


def _volume_of(work: Work, run: ClientRun) -> Captured | None:
    if run.kind != VOLUME:
        return None
    return next((each for each in work.plan.volumes if each.dataset == run.of), None)


def _clone(work: Work, volume: Captured) -> int:
    """Make the clone, if it is not there yet, and return its size; raises CommandFailed."""
    name = clone_of(work.names, volume.dataset, volume.number)
    if name in work.clones and not work.clones[name]:
        # It could not be made for the repository before this one; it may be there in part.
        _destroy(work, name)
    if name not in work.clones:
        # A command that failed, or was killed, may have done its work all the same.
        work.clones[name] = 0
        snapshot = f"{volume.dataset}@{work.names.snapshot}"
        facts = volumes.clone(work.task.door, snapshot, name, work.names.run)
        work.clones[name] = facts.size
    if not work.clones[name]:
        raise CommandFailed(["zfs", "clone"], f"what is left of {name} is in the way")
    return work.clones[name]


def close_source(work: Work, called: Called) -> None:
    """Note what the volume was like, and destroy the clone if no client run needs it any more.

    What stays is destroyed in the end: see remove_clones().
    """
    volume = _volume_of(work, called.run)
    if volume is None or not called.run.source:
        return
    if called.saved and called.size:
        try:
            called.fingerprint = fingerprint.take(called.run.source, called.size)
        except OSError as error:
            work.report.notes.append(
                f"{volume.dataset}: nothing is noted for a restore drill to compare with: "
                f"{reason_of(error)}"
            )
    index = work.report.runs.index(called)
    if any(later.run.of == volume.dataset for later in work.report.runs[index + 1 :]):
        return
    name = clone_of(work.names, volume.dataset, volume.number)
    if name in work.clones:
        _destroy(work, name)


def _destroy(work: Work, name: str) -> None:
    """Destroy a clone; one that stays is noted still."""
    removed = volumes.destroy(work.task.door, [name])
    work.report.notes += map(own.about_stranger, removed.strangers)
    if not removed.done.left:
        del work.clones[name]


def remove_clones(work: Work) -> list[zfs.NotDestroyed]:
    """Destroy the clones that are left, tell of those that stay, and return them."""
    report = work.report
    removed = volumes.destroy(work.task.door, list(work.clones))
    report.notes += map(own.about_stranger, removed.strangers)
    for each in removed.done.left:
        report.fail(
            f"the clone {each.name} cannot be destroyed: {each.reason}; the next run tries "
            f"again, or: {own.by_hand(work.place, removed.done.left, each.name)}",
            EX_OSERR,
        )
    return list(removed.done.left)
