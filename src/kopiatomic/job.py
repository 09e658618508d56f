"""What the user asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    """One backup job, as the command line or periodic.conf(5) describes it.

    ``command`` and ``options`` are split into words already; the hooks are
    text for /bin/sh. ``environment`` is what ``env_file`` holds.
    """

    program: str  # kopiatomic or restomic
    name: str = "default"
    targets: tuple[str, ...] = ()
    everything: bool = False  # -a
    recursive: bool = False  # -r
    exclude: tuple[str, ...] = ()  # -x
    command: tuple[str, ...] = ()  # -c
    options: tuple[str, ...] = ()  # -o
    plain: bool = False  # --plain: hand the client nothing but paths
    before: str | None = None  # -p
    after_snapshot: str | None = None  # -s
    after: str | None = None  # -q
    live: tuple[str, ...] = ()  # --live
    env_file: str | None = None  # -e
    environment: Mapping[str, str] = field(default_factory=dict)
