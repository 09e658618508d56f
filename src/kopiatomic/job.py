"""What the user asked for."""

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType

from kopiatomic.errors import Refusal
from kopiatomic.record import Record


class Job(Record):
    """One backup job, as the command line or periodic.conf(5) describes it.

    ``command`` and ``options`` are split into words already; the hooks are
    text for /bin/sh. There is an env file for each repository; where the job is made ready
    for one of these, it has that one alone, and ``environment`` is what it holds.
    """

    program: str  # kopiatomic or restomic
    name: str = "default"
    targets: tuple[str, ...] = ()
    everything: bool = False  # -a
    recursive: bool = False  # -r
    exclude: tuple[str, ...] = ()  # -x
    jailed: bool = False  # --jailed: what belongs to jails, too
    at: str | None = None  # --at: the directory where what is mounted nowhere is shown
    snapshot: str | None = None  # --snapshot: take existing ones that match, make none
    volumes: bool = False  # --volumes: take along the volumes among what is chosen
    command: tuple[str, ...] = ()  # -c
    options: tuple[str, ...] = ()  # -o
    plain: bool = False  # --plain: hand the client nothing but paths
    before: str | None = None  # -p
    after_snapshot: str | None = None  # -s
    after: str | None = None  # -q
    notify: str | None = None  # --notify
    live: tuple[str, ...] = ()  # --live
    retries: int = 0  # --retries: how often a client that could not reach it is tried again
    pause: float = 300.0  # --retry-pause: before each of these, in seconds
    proof: bool = True  # not --no-proof: ask the repository whether all is in the backup
    layout: bool = False  # not --no-layout: save the layout of the pools as well
    env_files: tuple[str, ...] = ()  # -e
    environment: Mapping[str, str] = MappingProxyType({})
    origins: Mapping[str, str] = MappingProxyType({})  # of targets in a list: file and line
    links: frozenset[str] = frozenset()  # targets that are symbolic links, meant themselves
    patterns: bool = False  # whether lists have patterns, of which each run takes what matches
    remarks: tuple[str, ...] = ()  # what there is to say of the lists
    lists: tuple[str, ...] = ()  # the files that they were read from
    periodic: bool = False  # --periodic: nobody is there to correct a path that is gone
    gone: tuple[str, ...] = ()  # the targets that are, which the backup lacks

    def place_of(self, target: str) -> str:
        """Return the file and line of a target that is in a list, to begin a message with."""
        return f"{self.origins[target]}: " if target in self.origins else ""


def split_words(text: str, option: str) -> tuple[str, ...]:
    """Split an option's text into words as sh(1) would; raises Refusal.

    The text may hold a password, so it is not in the message.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Refusal(f"{option}: {str(error).lower()}; mind its quotes") from error


def seconds_of(text: str, option: str) -> float:
    """Return a time that was given as an option's text, in seconds; raises Refusal."""
    match = re.fullmatch(r"([0-9]{1,9})([smh]?)", text)
    if not match:
        raise Refusal(f"{option} {text}: a time is wanted, as in 30s, 10m or 4h")
    return float(int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]])


def pattern_of(text: str) -> str:
    """Return the pattern of --snapshot; raises Refusal."""
    if not text or "@" in text or "/" in text:
        raise Refusal(
            f"--snapshot '{text}': a pattern for what stands after the @ of a snapshot is wanted, "
            "such as 'autosnap_*'"
        )
    return text


def retries_of(text: str) -> int:
    """Return how often a client is to be tried again; raises Refusal."""
    if not re.fullmatch(r"[0-9]{1,3}", text):
        raise Refusal(f"--retries {text}: a whole number is wanted, from 0 to 999")
    return int(text)
