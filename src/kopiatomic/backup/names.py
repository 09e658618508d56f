"""What one run calls its things, and how a thing of ours tells whose it is."""

import os
import time

from kopiatomic.record import Record
from kopiatomic.state import Place


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


def name_run(place: Place) -> Names:
    """Return the names that one run uses; the snapshot's is unlike any other's."""
    number = os.urandom(6).hex()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return Names(
        run=f"{marks_of(place)}{number}",
        snapshot=f"{beginning_of(place.program)}{stamp}-{number}",
        directory=place.directory,
    )


def beginning_of(program: str) -> str:
    """Return how the names of all snapshots of a program begin, after the @."""
    return f"{program}-"


def marks_of(place: Place) -> str:
    """Return how the marks of all runs of a job begin."""
    return f"{place.program}:{place.job}:"


def job_of(mark: str) -> tuple[str, str] | None:
    """Return the program and job that a mark names, or None if it is none of ours."""
    parts = mark.split(":")
    return (parts[0], parts[1]) if len(parts) == 3 else None
