"""What one run calls its things, and how a thing of ours tells whose it is."""

import os
import time

from kopiatomic.record import Record
from kopiatomic.state import Place

# How the marks begin that are made in a jail.
_JAIL = "jail."


class Names(Record):
    """What one run calls its things, and where it puts them.

    ``run`` is the value of the run property, the mark of our snapshots; ``snapshot``
    the part after the @; ``directory`` the job's working directory, which holds the
    view, the stand-in trees and, where needed, TMPDIR.
    """

    run: str
    snapshot: str
    directory: str

    @property
    def view(self) -> str:
        """Where the view is mounted."""
        return f"{self.directory}/view"

    @property
    def temporary(self) -> str:
        """The TMPDIR of a client whose own is frozen."""
        return f"{self.directory}/tmp"

    @property
    def holds(self) -> str:
        """Where the snapshots themselves are mounted."""
        return f"{self.directory}/hold"

    @property
    def gaps(self) -> str:
        """Where the stand-in trees are kept."""
        return f"{self.directory}/gap"

    @property
    def closed(self) -> str:
        """The empty directory that is shown where nobody may write."""
        return f"{self.gaps}/closed"


def clone_of(names: Names, volume: str, number: int) -> str:
    """Return the name of the clone from which a volume is read; of it none of the user's needs be.

    It lies right in the pool, so that its name is never too long; zfs.is_like_our_clone()
    knows it again.
    """
    return f"{volume.split('/')[0]}/{names.snapshot}.{number}"


def name_run(place: Place, jailed: bool = False) -> Names:
    """Return the names that one run uses; the snapshot's is unlike any other's."""
    number = os.urandom(6).hex()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return Names(
        run=f"{marks_of(place, jailed)}{number}",
        snapshot=f"{beginning_of(place.program)}{stamp}-{number}",
        directory=place.directory,
    )


def beginning_of(program: str) -> str:
    """Return how the names of all snapshots of a program begin, after the @."""
    return f"{program}-"


def marks_of(place: Place, jailed: bool = False) -> str:
    """Return how the marks of all runs of a job begin, of those made in a jail if ``jailed``.

    A host sees what its jails snapshot, and a jail what the host snapshots of its datasets:
    neither may take for its own what a job of the same name has made in the other.
    """
    return f"{marks_beginning(place.program, jailed)}{place.job}:"


def marks_beginning(program: str, jailed: bool = False) -> str:
    """Return how the marks of all jobs of a program begin."""
    return f"{_JAIL if jailed else ''}{program}:"


def job_of(mark: str, jailed: bool = False) -> tuple[str, str] | None:
    """Return the program and job that a mark names, or None if it is none of ours."""
    if mark.startswith(_JAIL) != jailed:
        return None
    parts = mark.removeprefix(_JAIL).split(":")
    return (parts[0], parts[1]) if len(parts) == 3 else None
