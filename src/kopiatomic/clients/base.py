"""What a client must know: how it is called for each purpose, and what its words mean.

A client of its own is a class derived from Client, in a file of its own, and a row in
the table of this package. Nothing outside of it knows an option, an environment
variable, an exit status or a message of it.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kopiatomic.clients.reader import Reader
from kopiatomic.environment import inherit
from kopiatomic.errors import EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door, find, quote

# The kinds of steps that upkeep consists of.
CHECK, FORGET, PRUNE, MAINTENANCE = "check", "forget", "prune", "maintenance"


class Figures(NamedTuple):
    """What the client says it did, as numbers; None where it did not say.

    ``added`` is in bytes as they were before compression, where the client
    tells; ``files`` are with symbolic links for kopia, without for restic;
    ``snapshots`` are the names of the backups it made.
    """

    files: int | None = None
    new_or_changed: int | None = None
    directories_changed: int | None = None
    size: int | None = None
    added: int | None = None
    snapshots: tuple[str, ...] = ()


class Needs(NamedTuple):
    """What the client needs of the view, as absolute paths without symbolic links.

    ``program`` must be there; ``repository``, if it is local, must be there and
    writable; the directories ``writable`` should be, and ``live`` must be;
    ``temporary`` is the usual TMPDIR.
    """

    program: str
    temporary: str = "/tmp"
    scratch: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    repository: str | None = None
    repositories: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


class Request(NamedTuple):
    """One backup, as a client is asked for it.

    ``paths`` are to be backed up and ``skipped`` places in them that are to be left out;
    ``moment`` is the snapshot's as time(3) has it, None while it is not known;
    ``parent`` the earlier backup to continue, where it has to be named; ``captured``
    says whether we read the client's output.
    """

    paths: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    moment: float | None = None
    parent: str | None = None
    captured: bool = True


class Missing(NamedTuple):
    """A captured mount point that a backup lacks, or has without entries (``empty``)."""

    point: str
    empty: bool


class Proof(NamedTuple):
    """What the repository says of a new backup."""

    backups: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    stands_in: str | None = None
    moment: float | None = None


class ByHand(NamedTuple):
    """How somebody calls a job's client for anything but a backup, as a shell takes it."""

    call: str
    env_file: str | None = None

    def __call__(self, words: str) -> str:
        """Return the command line with these words, for a message."""
        needs = f" (with the variables of {quote([self.env_file])})" if self.env_file else ""
        return f"{self.call} {words}{needs}"


class Wishes(NamedTuple):
    """Which steps of upkeep were asked for; ``verify`` is how much of the data, in percent."""

    verify: float | None = None
    maintenance: bool = False
    forget: tuple[str, ...] | None = None
    prune: bool = False


class Step(NamedTuple):
    """One call of the client in upkeep: what it is for, what people call it, the command line."""

    kind: str  # CHECK, FORGET, PRUNE or MAINTENANCE
    title: str
    argv: tuple[str, ...]


class Source(NamedTuple):
    """The last backup of one source: its id, its paths, the moment it shows.

    ``root`` is what the client itself wants to know again of it.
    """

    backup: str
    title: str
    moment: float
    path: str = ""
    root: Mapping[str, object] | None = None


class File(NamedTuple):
    """A file in a backup: as it was recorded, and the words that make the client print it.

    Times are in nanoseconds, None where the backup does not know.
    """

    path: str
    size: int
    mtime: int | None
    fetch: tuple[str, ...]
    ctime: int | None = None
    inode: int | None = None


@dataclass
class Tally:
    """What came of one source; ``too_large`` and ``unnamed`` files were not chosen."""

    source: Source
    chosen: int = 0
    restored: int = 0
    identical: int = 0
    changed: list[str] = field(default_factory=list)
    too_large: int = 0
    unnamed: int = 0
    problems: list[str] = field(default_factory=list)


class Client:
    """What all clients have in common, and what each has to say for itself."""

    name: str
    subcommand: tuple[str, ...]

    # Options of a backup that say which repository and how to reach it, so that the
    # client's other subcommands need them as well: those that take a word, and those
    # that do not.
    repository_words: tuple[str, ...] = ()
    repository_switches: tuple[str, ...] = ()

    # How it is called

    def command(self, job: Job) -> list[str]:
        """Return the words that start a backup, with the subcommand where it is missing.

        A wrapper of one word is taken to know its subcommand itself.
        """
        words = list(job.command) or [self.name]
        first, last = self.subcommand[0], self.subcommand[-1]
        if job.plain or last in words[1:]:
            return words
        if first in words[1:]:
            index = words.index(first, 1) + 1
            return [*words[:index], *self.subcommand[1:], *words[index:]]
        if os.path.basename(words[0]) == self.name:
            return [*words, *self.subcommand]
        return words

    def program(self, job: Job) -> str:
        """Return the path of the client or wrapper; raises Refusal if it cannot be run."""
        name = self.command(job)[0]
        path = find(name)
        if path is not None:
            return path
        if os.path.exists(name):
            raise Refusal(f"{name} is not executable; chmod +x {name}", EX_UNAVAILABLE)
        hint = f"install sysutils/{name}" if name == self.name else "look at -c, or its path"
        raise Refusal(f"the client '{name}' is not installed; {hint}", EX_UNAVAILABLE)

    def is_plain(self, job: Job) -> bool:
        """Say whether the client is called by itself and not through a wrapper."""
        return not job.command or os.path.basename(job.command[0]) == self.name

    def backup_command(self, job: Job, request: Request) -> list[str]:
        """Return the command line of a backup: what the user gave, our part, the live paths."""
        ours = [] if job.plain else self.arguments(job, request)
        return [*self.command(job), *ours, *job.options, *request.paths]

    def base_command(self, job: Job) -> list[str]:
        """Return the words to which the client's other subcommands can be added.

        They are those of the backup's command before its subcommand, and what it
        says of the repository after that. Raises Refusal where that cannot be told.
        """
        words = self.command(job)
        first = self.subcommand[0]
        if job.plain or first not in words[1:]:
            wanted = " ".join((os.path.basename(words[0]), *self.subcommand))
            raise Refusal(
                f"the command '{words[0]}' does not name its subcommand, so {self.name} cannot be "
                f"asked for anything but a backup; let it end in 'exec {self.name} \"$@\"' and "
                f"call it as in -c \"{wanted}\""
            )
        index = words.index(first, 1)
        return [*words[:index], *self.about_repository([*words[index + 1 :], *job.options])]

    def about_repository(self, options: Sequence[str]) -> list[str]:
        """Return those of a backup's options that say which repository and how to reach it."""
        words: list[str] = []
        for index, word in enumerate(options):
            name, equals, _ = word.partition("=")
            joined = not word.startswith("--") and len(word) > 2
            joined = joined and word[:2] in self.repository_words
            known = name in self.repository_words
            if word in self.repository_switches or joined or (equals and known):
                words.append(word)
            elif known:
                words += options[index : index + 2]
        return words

    def by_hand(self, job: Job) -> ByHand:
        """Return how somebody calls this job's client for anything but a backup."""
        try:
            return ByHand(quote(self.base_command(job)), job.env_file)
        except Refusal:
            return ByHand(self.name, job.env_file)

    # What it needs

    def environment(self, job: Job, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the client's environment: the caller's, less what endangers root, and ours.

        A variable of the env file wins over the caller's of that name.
        """
        base = {**inherit(inherited), **job.environment}
        return base if job.plain else base | self.variables(base)

    def needs(self, job: Job, program: str, environment: Mapping[str, str]) -> Needs:
        """Return what the client needs of a view; looks at the live file system only.

        ``program`` is the path of the client or wrapper.
        """
        home = environment.get("HOME", "/")
        writable = [
            environment.get("XDG_CACHE_HOME") or f"{home}/.cache",
            environment.get("XDG_CONFIG_HOME") or f"{home}/.config",
            *self.directories(environment),
        ]
        repository = self.repository(job, environment)
        return Needs(
            program=os.path.realpath(program),
            temporary=os.path.realpath(environment.get("TMPDIR") or "/tmp"),
            writable=tuple(
                dict.fromkeys(os.path.realpath(path) for path in writable if os.path.isdir(path))
            ),
            live=job.live,
            repository=os.path.realpath(repository) if repository else None,
        )

    # What each client says for itself

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return what the client is told about this backup beside the paths."""
        raise NotImplementedError

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what the client's environment needs beside the usual."""
        return {}

    def directories(self, environment: Mapping[str, str]) -> list[str]:
        """Return the directories of its own that variables name, or empty strings."""
        return []

    def repository(self, job: Job, environment: Mapping[str, str]) -> str | None:
        """Return the directory of a local repository, where it can be told; or None."""
        raise NotImplementedError

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read what the client printed."""
        raise NotImplementedError

    def speaks_to_us_alone(self, words: Sequence[str]) -> bool:
        """Say whether a backup's standard output is for programs, and is not shown."""
        return False

    def is_incomplete(self, status: int) -> bool:
        """Say whether an exit status means a backup that lacks some files."""
        return False

    def locked(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Say who has locked the repository and what to do about it, if that is the matter."""
        return None

    def hint(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Say what a failed backup means and what to do about it, where that is known.

        ``by_hand`` is how this job's client is called, where not just by its name.
        """
        if "read-only file system" in text.lower() or "EROFS" in text:
            return (
                "it tried to write where the view is frozen; name that directory with --live, "
                "or keep repository and cache outside the datasets that are backed up"
            )
        return None

    def hint_between(self, job: Job, status: int, text: str = "") -> str | None:
        """Say what an exit status means outside of a backup, where that is known.

        ``text`` is what it said, for who holds a lock; the rest of that is about views.
        """
        return self.locked(status, text, self.by_hand(job)) or self.hint(status, "")

    def about_live(self, live: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Say what the user has to do about places in the backup that are not frozen."""
        return []

    def parent(
        self,
        door: Door,
        job: Job,
        paths: Sequence[str],
        last_paths: Sequence[str] | None,
        environment: Mapping[str, str],
    ) -> str | None:
        """Return the earlier backup to name as the one to continue, or None to name none.

        ``last_paths`` are those of the job's last good run, None if none is known.
        """
        return None

    def one_file_system(self, job: Job, script: str) -> bool:
        return False

    def complaints(self, messages: bytes) -> str:
        return ""

    def keeps(self, mode: int) -> bool:
        return True

    def proves_itself(self, job, request, figures, output, points) -> bool:
        return True

    def prove(self, reader, job, request, figures, points, since, script) -> Proof:
        raise NotImplementedError

    def likely_reason(self, job, script, missing) -> str:
        return ""

    # Upkeep

    def steps(self, job: Job, wishes: Wishes, environment: Mapping[str, str]) -> list[Step]:
        """Return the steps of upkeep that were asked for, in their order; raises Refusal.

        The check comes first, so that nothing is removed in a damaged repository.
        """
        raise NotImplementedError

    def step_problem(self, kind: str, text: str) -> str | None:
        """Say what went wrong in a step whatever its exit status, by what the client said."""
        return None

    def step_hint(self, job: Job, kind: str, status: int, text: str) -> str | None:
        """Say what a failed step means and what to do about it, where that is known."""
        return self.hint_between(job, status, text)

    # The drill

    def sources(self, reader: Reader, job: Job, environment: Mapping[str, str]) -> list[Source]:
        """Return the last backup of each of this machine's sources; raises ClientFailed."""
        raise NotImplementedError

    def files(
        self, reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
    ) -> list[File]:
        """Return so many files of a source, each with the same chance; raises ClientFailed.

        Larger ones than ``size_limit`` bytes are counted in ``tally`` and not chosen.
        """
        raise NotImplementedError


class Task(NamedTuple):
    """A job made ready: its client, what that is run with, and what keeps secrets hidden.

    ``program`` is the path of the client or wrapper, or empty where it need not be there;
    ``notes`` are for the report.
    """

    job: Job
    client: Client
    door: Door
    environment: Mapping[str, str]
    program: str
    hide: Callable[[str], str]
    script: str = ""
    notes: tuple[str, ...] = ()
