"""How the programs tell what came of something: where words go, and the exit status."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from kopiatomic.errors import PERIODIC_TROUBLE
from kopiatomic.job import Job
from kopiatomic.system import process
from kopiatomic.system.command import printable


class Account(Protocol):
    """What came of something: its exit status, and what went wrong, a line each."""

    @property
    def status(self) -> int:
        """The exit status; 0 if nothing went wrong."""

    @property
    def problems(self) -> Sequence[str]:
        """What went wrong."""


def streams(values: Mapping[str, str]) -> process.Streams:
    """Return where the client's output goes."""
    if "--periodic" in values:
        return process.Streams(output=None, messages=None)
    as_json = "--json" in values
    return process.Streams(
        output=2 if as_json else 1, capture=as_json or not process.on_terminal()
    )


def tell(
    job: Job, account: Account, values: Mapping[str, str], good: int = 0
) -> int:
    """Say what went wrong and return the exit status; ``good`` is periodic(8)'s where all is well.

    The mail has the problems in the report.
    """
    if "--periodic" in values:
        return PERIODIC_TROUBLE if account.status else good
    for problem in account.problems:
        print(f"{job.program}: {printable(problem)}", file=sys.stderr)
    return account.status


def show(text: str) -> None:
    """Write to standard output what may hold bytes that are no text; a gone reader is fine."""
    try:
        sys.stdout.flush()
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass
