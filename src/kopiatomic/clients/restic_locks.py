"""Locks in a restic repository: who holds one, and which of them are stale."""

import os
import re
import time
from collections.abc import Callable, Sequence

from kopiatomic.clients.parsing import ask, nanoseconds, understood
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import UNLOCK, Ready, Step
from kopiatomic.formatting import clock
from kopiatomic.record import Record
from kopiatomic.system.command import decode

# Not just anywhere: a file that cannot be read may have that name.
_BAD_LOCK = (
    r'(?m)^(?:Fatal: |unable to create lock|\{"message_type":"exit_error").*invalid lock file'
)

# How restic names the owner of a lock, as text or, with --json, within a string.
_LOCK = (
    r"already locked (?:exclusively )?by (PID [0-9]{1,9} on (\S{1,255}) by \S.{0,99}?)"
    r"(?:\\n|\n)lock was created at [^(\n]{0,40}"
    r"\(((?:([0-9]{1,9})h)?(?:([0-9]{1,2})m(?!s))?[^)\n]{0,30}) ago\)"
)

# After so many minutes restic takes any lock for stale, as a living one renews its lock. Before,
# it does so only on the machine that made the lock, once the process has gone.
_STALE = 30

# What is added to that before a process is known not to be signalled, in minutes.
_SLACK = 2

# A living restic renews its lock every 5 minutes (defaultRefreshInterval in its
# internal/repository/lock.go). Whose lock is younger than twice that may live although
# there is no such process here: on another machine that has the same name.
_RENEWED = 10

# So many locks are looked at: one of each restic that runs, or has died.
_MOST = 100


def is_bad(text: str) -> bool:
    """Say whether restic complains of a lock that cannot be read."""
    return re.search(_BAD_LOCK, text) is not None


def explain(text: str, unlock: str) -> str:
    """Say who holds the lock, as far as restic told it, and how to get rid of it."""
    found = re.search(_LOCK, text)
    owner, host, age, hours, minutes = found.groups() if found else (None,) * 5
    by = f" by {owner} for {re.sub(r'[.][0-9]+', '', age or '')}" if found else ""
    if int(hours or 0) * 60 + int(minutes or 0) >= _STALE:
        return (
            f"the repository is locked{by}; that restic is dead, or it would have renewed its "
            f"lock; remove it: {unlock}"
        )
    return (
        f"the repository is locked{by}; if that restic still runs, wait for it, or let restic "
        f"wait with -o --retry-lock=1h; if it is dead: {unlock}, on {host or 'its machine'} at "
        f"once, elsewhere when the lock is {_STALE} minutes old"
    )


# Stale ones


class Lock(Record):
    """A lock as restic stores it; ``moment`` is when it was renewed last, as time(3) has it."""

    host: str
    process: int
    user: str
    moment: float

    def __str__(self) -> str:
        """Say whose it is."""
        since = clock(self.moment)
        return f"that of process {self.process} on {self.host} by {self.user}, of {since}"


def read_all(reader: Reader) -> list[Lock]:
    """Return the locks in a repository, by ``restic list`` and ``restic cat``; raises ClientFailed.

    One that is gone meanwhile, or cannot be read, is passed over.
    """
    said = decode(reader.whole("list", "--no-lock", "locks"))
    locks = []
    for name in re.findall(r"^[0-9a-f]{64}$", said, re.M)[:_MOST]:
        try:
            told = ask(reader, dict, ("cat", "--no-lock", "lock", name), "hostname", "pid", "time")
            with understood():
                moment = (nanoseconds(told["time"]) or 0) / 1e9
                host, user = str(told["hostname"]), str(told.get("username") or "somebody")
                locks.append(Lock(host, int(told["pid"]), user, moment))
        except ClientFailed:
            continue
    return locks


def ready(reader: Reader) -> Ready:
    """Return the step that removes stale locks if there is one of this machine, and say whose.

    ``restic unlock`` takes those of processes of this machine that have gone, and any that
    was not renewed for half an hour; what nobody has asked about is a doubt. It is not called
    as long as the process may live on another machine that has the name of this one.
    """
    try:
        locks = read_all(reader)
    except ClientFailed as error:
        return Ready((), doubts=((f"stale locks could not be looked for: {error}", error.status),))
    now = time.time()
    stale, asked = stale_ones(locks, now, lives)
    if not stale:
        return Ready(())
    young = [each for each in stale if now - each.moment <= _RENEWED * 60]
    if young:
        return Ready((), tuple(
            f"lock without a process: {each}; it stays, for a restic on another machine that "
            f"is called so too may have it still; {_RENEWED} minutes after that it is stale"
            for each in young
        ))  # fmt: skip
    notes = [f"stale lock: {each}" for each in stale]
    if asked:
        numbers = ", ".join(str(each.process) for each in asked)
        return Ready((), (*notes, (
            f"it stays, for to remove it restic would send SIGHUP to process {numbers}, "
            "which another lock names and which may be any program by now"
        )))  # fmt: skip
    return Ready((Step(UNLOCK, "remove stale locks", (*reader.base, "unlock")),), tuple(notes))


def stale_ones(
    locks: Sequence[Lock], now: float, lives: Callable[[int], bool]
) -> tuple[list[Lock], list[Lock]]:
    """Return the locks that ``restic unlock`` removes, and those whose process it would signal.

    The first is empty unless one of them is of this machine. To see whether the process of
    a lock of this machine is there, restic sends it SIGHUP (processExists() in its
    lock_file_unix.go), which a restic ignores; but another program may have its number now.
    """
    here = [each for each in locks if each.host == os.uname().nodename]
    old = [each for each in locks if now - each.moment > _STALE * 60]
    gone = [each for each in here if not lives(each.process)]
    signalled = [
        each for each in here if now - each.moment <= (_STALE + _SLACK) * 60 and lives(each.process)
    ]
    ours = set(here) & {*old, *gone}
    return (list(dict.fromkeys([*gone, *old])) if ours else []), signalled


def lives(process: int) -> bool:
    """Say whether there is a process of that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError, ValueError):
        return True
    return process > 0
