"""Which of the volumes that were chosen are backed up."""

from collections.abc import Iterable

from kopiatomic.backup.selection import SWAP, LeftOut, Selection
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.system import volumes
from kopiatomic.system.command import CommandFailed, Door, quote
from kopiatomic.system.machine import Dataset, volume_at


def check_devices(job: Job, datasets: Iterable[Dataset]) -> None:
    """Refuse a target that is a directory of devices; raises Refusal.

    ``job`` has its targets as they were given: by their names these are file systems.
    """
    named = {volume_at(target): target for target in job.targets}
    for each in datasets:
        if each.type == "filesystem" and each.name in named:
            target = named[each.name]
            listing = quote(["zfs", "list", "-t", "volume", "-r", each.name])
            raise Refusal(
                f"{job.place_of(target)}'{target}' is a directory of devices, and {each.name} a "
                f"file system; name each volume ({listing} shows them), or "
                f"say -r --volumes {quote([each.name])} for all that is in it",
                EX_NOINPUT,
            )


def fit_for(job: Job, door: Door, selection: Selection) -> Selection:
    """Return a selection without volumes for swap that nobody has named; raises Refusal.

    What is in swap space nobody needs. Where it cannot be told, none is left out.
    """
    if not selection.volumes:
        return selection
    if job.snapshot is not None:
        raise Refusal(
            "--snapshot takes snapshots of file systems, and for a volume one is made: back up "
            f"{selection.volumes[0].dataset} in a job of its own"
        )
    if job.plain:
        raise Refusal(
            "--plain hands the client nothing but paths, and a volume is read from its standard "
            f"input: leave out --plain, or {selection.volumes[0].dataset}"
        )
    unnamed = [each.dataset for each in selection.volumes if not each.named]
    if not unnamed:
        return selection
    try:
        facts = volumes.facts_of(door, unnamed)
    except CommandFailed:
        return selection
    swap = {name for name in unnamed if name in facts and facts[name].swap}
    reason = "swap space (its property org.freebsd:swap is on)"
    return selection._replace(
        volumes=tuple(each for each in selection.volumes if each.dataset not in swap),
        left_out=(*selection.left_out, *(LeftOut(each, reason, SWAP) for each in sorted(swap))),
    )
