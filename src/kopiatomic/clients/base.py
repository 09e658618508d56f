"""What a client must know: how it is called for each purpose, and what its words mean.

A client of its own is a class derived from Client, in a file of its own, and a row in
the table of this package. Nothing outside of it knows an option, an environment
variable, an exit status or a message of it.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from kopiatomic.clients import places, wrapper
from kopiatomic.clients.parsing import parse_options, without
from kopiatomic.clients.reader import Reader
from kopiatomic.clients.records import (
    ByHand,
    Figures,
    File,
    Missing,
    Needs,
    Past,
    Proof,
    Ready,
    Request,
    Source,
    Step,
    Streamed,
    Tally,
    Wishes,
)
from kopiatomic.environment import inherit
from kopiatomic.errors import EX_CONFIG, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.record import TYPE_CHECKING, Record
from kopiatomic.system.command import CommandFailed, Door, decode, find, printable, quote

if TYPE_CHECKING:
    import random

    from kopiatomic.clients.room import Room
    from kopiatomic.lists import Listing

# What else a client may read in HOME: keys, and what gives access to a repository.
_OF_HOME = (".ssh", ".gnupg", ".aws")

# Programs that clients start to reach a repository, where something speaks of them.
_HELPERS = ("rclone", "ssh", "gpg", "pass", "age")

# Inherited variables that clients and their helpers read.
_FOR_CLIENTS = (
    "(RESTIC|KOPIA|RCLONE|AWS|GOOGLE|AZURE|B2|OS|ST|SSL_CERT)_"
    "|(GNUPGHOME|SSH_AUTH_SOCK|TMPDIR|XDG_CACHE_HOME|XDG_CONFIG_HOME)$"
)

# How much of what a client said on standard error is told: lines, characters of each.
COMPLAINTS, COMPLAINT_LENGTH = 20, 300

# How long a client may take to say which version it is, in seconds.
VERSION_LIMIT = 60.0

COLOUR = r"\x1b\[[0-9;]*m"


class Client:
    """What all clients have in common, and what each has to say for itself."""

    name: str
    subcommand: tuple[str, ...]

    # Options of a backup that say which repository and how to reach it, so that the
    # client's other subcommands need them as well: those that take a word, and those
    # that do not.
    repository_words: tuple[str, ...] = ()
    repository_switches: tuple[str, ...] = ()

    # A backup's other options that take a word.
    option_words: tuple[str, ...] = ()

    # Those of them, all with a word, that choose files, which a stream has none of.
    path_words: tuple[str, ...] = ()

    # What makes it say which version it is.
    version_words: tuple[str, ...] = ("--version",)

    # The variable that says which repository, as an env file sets it.
    repository_variable: str = ""

    # Short options that take a secret; of long ones the name says that.
    secret_options: tuple[str, ...] = ()

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

    def without_lists(self, job: Job) -> "tuple[Job, tuple[Listing, ...]]":
        """Return a job without the client's own options that name lists of paths, and the lists.

        What stands in them is chosen like the targets, so that it is in the snapshots.
        """
        return job, ()

    def check_words(self, job: Job, script: str) -> None:
        """Refuse words, or a wrapper, that give the client paths which nobody has chosen.

        They may not be in the snapshots.
        """
        if job.plain or self.reads_input(self.options(job)):
            return
        loose = [value or "" for name, value in self.options(job) if name == ""]
        # Before the subcommand stands what runs the client, such as nice(1).
        last = self.subcommand[-1]
        begin = loose.index(last) + 1 if last in loose else 0
        paths = [each for each in loose[begin:] if each.startswith(("/", "./", "../"))]
        if paths:
            raise Refusal(
                f"-c or -o gives {self.name} the path '{paths[0]}', which would be backed up live; "
                "name it as an argument of its own",
                EX_CONFIG,
            )

    def reads_input(self, options: Sequence[tuple[str, str | None]]) -> bool:
        """Say whether the user's own options make the client store its standard input."""
        return False

    def files_of_patterns(self, job: Job, script: str = "") -> tuple[str, ...]:
        """Return the files in which it is listed what the client leaves out, as it names them."""
        return ()

    def is_plain(self, job: Job) -> bool:
        """Say whether the client is called by itself and not through a wrapper."""
        return not job.command or os.path.basename(job.command[0]) == self.name

    def backup_command(self, job: Job, request: Request) -> list[str]:
        """Return the command line of a backup: what the user gave, our part, the live paths."""
        ours = [] if job.plain else self.arguments(job, request)
        if request.stream is None:
            return [*self.command(job), *ours, *job.options, *request.paths]
        words = self.command(job)
        last = self.subcommand[-1]
        begin = words.index(last, 1) if last in words[1:] else 0
        called, options = (
            without(each, self.path_words, self.with_word) for each in (words[begin:], job.options)
        )
        return [*words[:begin], *called, *ours, *options, *self.stream_words(request.stream)]

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
                f'call it as in -c "{wanted}"'
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
            bundled = self._bundled(word)
            if bundled is not None:
                words.append(bundled)
                words += options[index + 1 : index + 2] if len(bundled) == 2 else []
            elif word in self.repository_switches or joined or (equals and known):
                words.append(word)
            elif known:
                words += options[index : index + 2]
        return words

    def _bundled(self, word: str) -> str | None:
        """Return the option of the repository in a bundle of short ones: -r/b of -vr/b."""
        if word.startswith("--") or word[:1] != "-":
            return None
        for index, letter in enumerate(word[1:], 1):
            option = f"-{letter}"
            if option in self.repository_words:
                return None if index == 1 else option + word[index + 1 :]
            if option in self.option_words:
                return None  # the rest is its word
        return None

    def by_hand(self, job: Job) -> ByHand:
        """Return how somebody calls this job's client for anything but a backup."""
        env_file = next(iter(job.env_files), None)
        try:
            return ByHand(quote(self.base_command(job)), env_file)
        except Refusal:
            return ByHand(self.name, env_file)

    def version(self, door: Door, job: Job, environment: Mapping[str, str]) -> str | None:
        """Return the client's version, None if it cannot be told."""
        try:
            argv = [*self.base_command(job), *self.version_words]
            said = door.run(argv, environment=environment, time_limit=VERSION_LIMIT).stdout
        except (Refusal, CommandFailed):
            return None
        found = re.search(r"(?m)^(?:[a-z]+ )?v?([0-9]+\.[0-9.]+\S{0,40})", said)
        return found[1] if found and found[1].isprintable() else None

    # What it needs

    def environment(self, job: Job, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the client's environment: the caller's, less what endangers root, and ours.

        A variable of the env file wins over the caller's of that name.
        """
        base = {**inherit(inherited), **job.environment}
        return base if job.plain else base | self.variables(base)

    def needs(
        self, job: Job, program: str, environment: Mapping[str, str], script: str = ""
    ) -> Needs:
        """Return what the client needs of a view; looks at the live file system only.

        ``program`` is the path of the client or wrapper, ``script`` the latter's text.
        """
        known = self.known(environment, script)
        home = places.home(known)
        own, others = self.scratch(job, known, script)
        kept = [places.configuration(known), places.caches(known)]
        kept += [f"{home}/{name}" for name in _OF_HOME]
        kept += [os.path.dirname(known.get("RCLONE_CONFIG", "")), *others]
        repository = self.repository(job, environment, script)
        texts = (*job.command, *job.options, *_said(job, known), script)
        return Needs(
            program=os.path.realpath(program),
            temporary=os.path.realpath(known.get("TMPDIR") or "/tmp"),
            writable=places.real_directories(kept),
            live=job.live,
            repository=os.path.realpath(repository) if repository else None,
            scratch=tuple(dict.fromkeys(map(os.path.realpath, own))),
            repositories=tuple(filter(self.is_repository, places.with_children(job.live))),
            places=places.with_real(
                [home, program, *self.programs(texts), *places.paths_in(texts)]
            ),
            texts=tuple(dict.fromkeys(filter(None, texts))),
        )

    def is_repository(self, directory: str) -> bool:
        """Say whether a directory is one in which this client keeps a repository."""
        return False

    def options(self, job: Job, script: str = "") -> list[tuple[str, str | None]]:
        """Return the options of a backup, those first that stand in a wrapper's text."""
        words = (*wrapper.calls(script, self.name), [*job.command[1:], *job.options])
        return [option for each in words for option in parse_options(each, self.with_word)]

    @property
    def with_word(self) -> frozenset[str]:
        """The options of a backup that take a word."""
        return frozenset((*self.repository_words, *self.option_words))

    def known(self, environment: Mapping[str, str], script: str) -> dict[str, str]:
        """Return the variables that the client will have, as far as a wrapper's text says."""
        return {**environment, **wrapper.assigned(script)}

    def hides(self, job: Job, script: str, name: str) -> bool:
        """Say whether a wrapper may set a variable to what cannot be told."""
        return wrapper.works_out(script, name) or not (script or self.is_plain(job))

    def zone(self, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return TZ as the client will have it, None where it is not set."""
        return self.known(environment, script).get("TZ")

    def programs(self, texts: Sequence[str]) -> list[str]:
        """Return the paths of the programs that are likely to be started by their names."""
        spoken = "\n".join(texts)
        named = [self.name, *(name for name in _HELPERS if re.search(rf"\b{name}\b", spoken))]
        interpreter = re.match(r"#!\s*/usr/bin/env\s+(?:-S\s+)?(\S+)", texts[-1]) if texts else None
        paths = map(find, [*named, *(interpreter.groups() if interpreter else ())])
        return [path for path in paths if path is not None]

    # What each client says for itself

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return what the client is told about this backup beside the paths."""
        raise NotImplementedError

    @property
    def takes_streams(self) -> bool:
        """Whether the client can store its standard input: it has words for that."""
        return type(self).stream_words is not Client.stream_words

    def stream_words(self, stream: str) -> list[str]:
        """Return the words that make the client store its standard input under that name."""
        raise NotImplementedError

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what the client's environment needs beside the usual."""
        return {}

    def scratch(
        self, job: Job, known: Mapping[str, str], script: str
    ) -> tuple[list[str], list[str]]:
        """Return what the client writes for itself, and its other directories.

        The first must hold nothing else. ``known`` are the variables it will have.
        """
        return [], []

    def repository(self, job: Job, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return the directory of a local repository, where it can be told; or None."""
        raise NotImplementedError

    def leads_to(self, job: Job, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return what tells a job's repository from others, or None where it cannot be told.

        It may hold a secret, and is there to be compared only.
        """
        return None

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read what the client printed."""
        raise NotImplementedError

    def speaks_to_us_alone(self, words: Sequence[str]) -> bool:
        """Say whether a backup's standard output is for programs, and is not shown."""
        return False

    def is_incomplete(self, status: int) -> bool:
        """Say whether an exit status means a backup that lacks some files."""
        return False

    def lacking(self, text: str) -> str | None:
        """Return the line in which the client says that its backup lacks files, or None.

        A wrapper may end with 0 all the same, or an option make the client do so.
        """
        return None

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

    def network_away(self, status: int, messages: str) -> str | None:
        """Return the line in which a failed client says that it could not reach the repository.

        ``messages`` is the end of what it wrote to standard error. None if it failed for
        another reason, or one that is not known.
        """
        return None

    def hint_between(self, job: Job, status: int, text: str = "") -> str | None:
        """Say what an exit status means outside of a backup, where that is known.

        ``text`` is what it said, for who holds a lock; the rest of that is about views.
        """
        by_hand = self.by_hand(job)
        return self.locked(status, text, by_hand) or self.hint(status, "", by_hand)

    def complaints(self, messages: bytes) -> str:
        """Return what a person must know of what the client said on standard error.

        It is without progress and what is said in every run, each line once, and not
        more than some lines; nothing if there is nothing to tell.
        """
        lines: dict[str, None] = {}
        for line in decode(messages).split("\n"):
            # Of a line that was written over only the last state counts.
            last = line.rstrip("\r").rpartition("\r")[2].strip()
            said = self.complaint(re.sub(COLOUR, "", last)) if last else None
            if said:
                lines[printable(said[:COMPLAINT_LENGTH])] = None
        told = list(lines)[:COMPLAINTS]
        more = len(lines) - len(told)
        return "\n".join([*told, f"... and {more} lines more"] if more else told)

    def complaint(self, line: str) -> str | None:
        """Return what a person must know of one line on standard error, or None."""
        return line

    def about_live(self, skipped: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Say what the user has to do about what is to be left out, if the client cannot."""
        return []

    def parent(
        self,
        door: Door,
        job: Job,
        paths: Sequence[str],
        last_paths: Sequence[str] | None,
        environment: Mapping[str, str],
        script: str = "",
    ) -> str | None:
        """Return the earlier backup to name as the one to continue, or None to name none.

        ``last_paths`` are those of the job's last good run, None if none is known.
        """
        return None

    # The proof that a backup holds what was captured

    def has_backups(self, reader: Reader, names: Collection[str]) -> bool:
        """Say whether the repository has the backups of a run, by their ids; raises ClientFailed.

        One run may have made several: one for each path, or one in each of several
        repositories, of which one is asked.
        """
        raise NotImplementedError

    def keeps(self, mode: int) -> bool:
        """Say whether the client keeps a file of this st_mode at all."""
        raise NotImplementedError

    def has_entries(self, directory: str, nested: Collection[str] = ()) -> bool:
        """Say whether a directory has an entry that the client keeps; raises OSError.

        Those called as one of ``nested`` do not count: what leads to a mount point of
        its own below the directory says nothing about the directory.
        """
        with os.scandir(directory) as entries:
            return any(
                entry.name not in nested and self.keeps(entry.stat(follow_symlinks=False).st_mode)
                for entry in entries
            )

    def one_file_system(self, job: Job, script: str) -> bool:
        """Say whether the client is told not to go into other file systems."""
        return False

    def proves_itself(
        self,
        job: Job,
        request: Request,
        figures: Figures,
        output: bytes,
        points: Mapping[str, bool],
        script: str = "",
    ) -> bool:
        """Say whether what the client printed shows already that all is in the backup.

        ``points`` are the captured mount points, and the directories and files that are
        captured alone: of each, whether its snapshot has entries that the client keeps, not
        counting those that lead to others of them. See has_entries(). A file counts as one
        that has.
        """
        return False

    def prove(
        self,
        reader: Reader,
        job: Job,
        request: Request,
        figures: Figures,
        points: Mapping[str, bool],
        since: float,
        script: str = "",
    ) -> Proof:
        """Ask the repository whether the captured mount points are in the new backup.

        ``points`` are as in proves_itself(), ``since`` is when the client was started,
        as time(3) has it. Raises ClientFailed where there is no clear answer.
        """
        raise NotImplementedError

    def likely_reason(self, job: Job, script: str, missing: Missing) -> str:
        """Say in a sentence why a mount point is likely to be missing, and what to do."""
        raise NotImplementedError

    def excluded_by(self, job: Job, script: str, path: str) -> str | None:
        """Say which pattern keeps a path out of the backup, where that is known."""
        return None

    def said_of_stream(
        self, job: Job, request: Request, figures: Figures, output: bytes, script: str = ""
    ) -> Streamed | None:
        """Return what the client printed of a stream that it has stored; None if that is unclear.

        Its size has to be exact.
        """
        return None

    def prove_stream(
        self,
        reader: Reader,
        job: Job,
        request: Request,
        figures: Figures,
        since: float,
        script: str = "",
    ) -> Streamed:
        """Ask the repository what the new backup has of a stream; raises ClientFailed.

        ``since`` is when the client was started, as time(3) has it.
        """
        raise NotImplementedError

    def wrapper_keeps_words(self, job: Job, script: str) -> str | None:
        """Say so if a wrapper does not pass on what it is called with."""
        if self.is_plain(job) or not script or wrapper.passes_on(script):
            return None
        return (
            f"{job.command[0]} does not pass on the paths that it is given; "
            f"let it end in 'exec {self.name} \"$@\"'"
        )

    # Upkeep

    def steps(
        self, job: Job, wishes: Wishes, environment: Mapping[str, str], script: str = ""
    ) -> list[Step]:
        """Return the steps of upkeep that were asked for, in their order; raises Refusal.

        The check comes first, so that nothing is removed in a damaged repository.
        """
        raise NotImplementedError

    def ready(
        self,
        reader: Reader,
        job: Job,
        wishes: Wishes,
        steps: Sequence[Step],
        past: Past,
        script: str = "",
    ) -> Ready:
        """Ask the repository what else is to be done, and told, in upkeep of these steps.

        What does not answer is a doubt; raises Interrupted, and CommandFailed where the
        client cannot be started.
        """
        return Ready(tuple(steps))

    def step_told(self, kind: str, text: str) -> str | None:
        """Return what a step that ended well has done, by what the client said, for a note."""
        return None

    def step_problem(self, kind: str, text: str) -> str | None:
        """Say what went wrong in a step whatever its exit status, by what the client said."""
        return None

    def step_hint(self, job: Job, kind: str, status: int, text: str) -> str | None:
        """Say what a failed step means and what to do about it, where that is known."""
        return self.hint_between(job, status, text)

    # The drill

    def sources(
        self, reader: Reader, job: Job, environment: Mapping[str, str], script: str = ""
    ) -> list[Source]:
        """Return the last backup of each of this machine's sources; raises ClientFailed."""
        raise NotImplementedError

    def stream_in(self, reader: Reader, source: "Source") -> "File | None":
        """Return the file that a stream is in a source; None if it is not, raises ClientFailed."""
        raise NotImplementedError

    def files(
        self,
        reader: Reader,
        room: "Room",
        tally: Tally,
        wanted: int,
        size_limit: int,
        rng: "random.Random",
    ) -> list[File]:
        """Return so many files of a source, chosen at random; raises ClientFailed, OSError.

        Of each mount point in ``tally.points`` there is at least one, where it has
        any, so there may be more than ``wanted``; the tally is told which are not
        there or empty. Larger files than ``size_limit`` bytes are counted in it and
        not chosen. The client may have written into ``room`` what it reads.
        """
        raise NotImplementedError

    def restore(self, reader: Reader, room: "Room", files: Mapping[str, File]) -> Collection[str]:
        """Have one process write the contents of files into ``room``, by these names.

        Returns the names of those that are there; the others are asked for one by one, as
        all are where a client has no such process. Raises OSError, Interrupted.
        """
        return ()


class Task(Record):
    """A job made ready: its client, what that is run with, and what keeps secrets hidden.

    ``program`` is the path of the client or wrapper, or empty where it need not be there;
    ``script`` is the text of a wrapper, empty if it is none. ``more`` are the same job with
    its further repositories; ``repository`` names this one's, where there are several.
    """

    job: Job
    client: Client
    door: Door
    environment: Mapping[str, str]
    program: str
    hide: Callable[[str], str]
    script: str = ""
    repository: str = ""
    more: tuple["Task", ...] = ()

    @property
    def env_file(self) -> str | None:
        """The path of its repository's env file, or None if it has none."""
        return next(iter(self.job.env_files), None)


def _said(job: Job, known: Mapping[str, str]) -> list[str]:
    """Return the values of the variables that the job sets, or that are for clients."""
    return [
        value
        for name, value in known.items()
        if name in job.environment or re.match(_FOR_CLIENTS, name)
    ]
