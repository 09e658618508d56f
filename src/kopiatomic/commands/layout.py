"""Printing how the machine's pools are laid out, as the commands that make them anew."""

import os
import sys
from collections.abc import Mapping

from kopiatomic.backup import jail
from kopiatomic.commands import common
from kopiatomic.errors import EX_DATAERR, EX_NOINPUT, EX_OSERR, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.layout import commands, form, taking
from kopiatomic.layout.form import Layout
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, reason_of


def show(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Print the layout of this machine, or of the one that a file tells of; raises Refusal.

    What is printed are commands, or the file itself where JSON is asked for.
    """
    if len(job.targets) > 1:
        raise Refusal("--layout takes one file, or none for this machine")
    layout = read(job.targets[0]) if job.targets else _of_this_machine(job, door)
    lines = commands.script(layout)
    text = form.as_text(layout, lines) if "--json" in values else "\n".join(lines) + "\n"
    common.show(text)
    return 0


def _of_this_machine(job: Job, door: Door) -> Layout:
    """Return the layout of all pools, and say on standard error what of it is lacking."""
    if jail.entered(door).jailed:
        raise Refusal(
            "this is a jail, whose pools and disks are its host's; ask for the layout there",
            EX_UNAVAILABLE,
        )
    try:
        pools = zfs.pools(door)
        if not pools:
            raise Refusal("this machine has no ZFS pool", EX_NOINPUT)
        taken = taking.take(door, pools, {})
    except CommandFailed as error:
        raise Refusal(f"the layout cannot be told: {error}", EX_OSERR) from error
    for each in taken.lacking:
        print(f"{job.program}: not in the layout: {each}", file=sys.stderr)
    return taken.layout


def read(path: str) -> Layout:
    """Return the layout in a file, ``-`` for standard input; raises Refusal."""
    name = "standard input" if path == "-" else path
    try:
        with os.fdopen(os.dup(0), "rb") if path == "-" else open(path, "rb") as file:
            data = file.read(form.LARGEST + 1)
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {reason_of(error)}", EX_NOINPUT) from error
    if len(data) > form.LARGEST:
        raise Refusal(f"{name} is no layout that a backup has saved: too large", EX_DATAERR)
    return form.parse(data, name)
