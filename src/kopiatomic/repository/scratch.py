"""The scratch directory of a restore drill: ours, closed to others, and gone afterwards."""

import os
import re
import stat
import tempfile

from kopiatomic import state
from kopiatomic.clients.room import DIRECTORY, Room
from kopiatomic.errors import EX_OSERR
from kopiatomic.repository.account import Account
from kopiatomic.state import Place


class Scratch(Room):
    """A directory of ours for the files that are being restored, closed to others."""

    def __init__(self, place: Place, account: Account) -> None:
        self.account = account
        super().__init__(tempfile.mkdtemp(prefix=prefix(place), dir=state.STATE_DIRECTORY))

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        reason = remove(self.path)
        if reason:
            self.account.fail(f"the scratch directory {self.path} stays: {reason}", EX_OSERR)


def prefix(place: Place) -> str:
    """Return how the names of a job's scratch directories begin."""
    return f"drill.{place.program}.{place.job}."


def remove(path: str) -> str | None:
    """Remove a scratch directory and the plain files in it; say why if it stays."""
    try:
        descriptor = os.open(path, DIRECTORY)
        try:
            for name in os.listdir(descriptor):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(path)
    except OSError as error:
        return error.strerror
    return None


def sweep(place: Place) -> list[str]:
    """Remove what a drill of this job that was killed has left; return what to say of it.

    Call it with the job's lock held: no other drill of the job is under way.
    """
    ours = re.compile(re.escape(prefix(place)) + "[a-z0-9_]{8}")
    notes = []
    for name in sorted(os.listdir(state.STATE_DIRECTORY)):
        path = f"{state.STATE_DIRECTORY}/{name}"
        if ours.fullmatch(name):
            reason = remove(path)
            told = f"{path}, left by an earlier drill, "
            notes.append(told + (f"stays: {reason}" if reason else "is removed"))
    return notes
