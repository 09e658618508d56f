"""All that is special to restic."""

import json
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence

from kopiatomic import lists
from kopiatomic.clients import (
    places,
    restic_figures,
    restic_proof,
    wrapper,
)
from kopiatomic.clients.base import Client
from kopiatomic.clients.parsing import (
    as_stored,
    ask,
    has_option,
    is_switched_on,
    json_objects,
    json_value,
    last_value,
    marked,
    nanoseconds,
    understood,
    without,
)
from kopiatomic.clients.reader import Reader
from kopiatomic.clients.records import (
    CHECK,
    FORGET,
    PRUNE,
    TAG,
    UNLOCK,
    ByHand,
    Figures,
    File,
    Missing,
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
from kopiatomic.clients.restic_moment import when
from kopiatomic.errors import EX_CONFIG, Refusal
from kopiatomic.job import Job
from kopiatomic.lists import Listing
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.command import CommandFailed, Door, decode, encode

if TYPE_CHECKING:
    import random

    from kopiatomic.clients.room import Room

# Without it a directory with files of several links looks changed in every
# run, and so do all files: each nullfs mount has a device number of its own.
FEATURE = "device-id-for-hardlinks"

# Its exit statuses, beside 1: restic's manual, "Exit codes".
INCOMPLETE, NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 3, 10, 11, 12

# Options with which the user decides about the parent.
_DECIDE_PARENT = ("--parent", "--force", "-f", "--group-by", "-g")

# What restic says of a backup that lacks something, whatever it ends with.
_LACKING = (
    r"(?m)^Warning: at least one source file could not be read$"
    r"|^.{1,4096} does not (?:exist|match any files), skipping$"
)

# What begins the lines that say why it failed: not those of a file, or of what it tries again.
_LAST_WORDS = (
    r"Fatal: |unable to create lock in backend|[A-Z][a-z]+\(<[^>]*>.*?\) failed: "
    r'|(?:Get|Head|Post|Put|Delete) "|subprocess [^:]{1,99}: |rclone: '
)

# What ssh says where it has reached the other machine, which does not let it in.
_DENIED = r"(?m)^subprocess [^:]{1,99}: .*(?:Permission denied|Host key verification failed)"

# What it says where ssh(1) has ended at once. Why, ssh says, but restic does not wait for that
# (startClient() in its internal/backend/sftp), and it is lost now and then.
_NO_SESSION = "unable to start the sftp session, error: "

# What it says of a tag that it could not give, and ends well all the same.
_NOT_TAGGED = r'(?m)^(?:unable to modify the tags for snapshot |Ignoring "[0-9a-f]{64}": )'

# The options that name a list of paths, and what stands in it.
_LISTS = {
    "--files-from": lists.PATTERNS,
    "--files-from-verbatim": lists.PATHS,
    "--files-from-raw": lists.PATHS_TO_NUL,
}

# What begins a repository that is no directory: the schemes of its internal/backend/all.
_REMOTE = "(azure|b2|gs|rclone|rest|s3|sftp|swift):"

# What the tag of each job begins with.
_TAG = "restomic:"

# How long a repository may take to list its backups, in seconds.
LISTING_LIMIT = 600.0


class Restic(Client):
    """restic(1)."""

    name = "restic"
    subcommand = ("backup",)
    version_words = ("version",)
    repository_words = (
        "-r", "--repo", "--repository-file", "-p", "--password-file", "--password-command",
        "--key-hint", "--cacert", "--tls-client-cert", "--cache-dir", "-o", "--option",
        "--limit-download", "--limit-upload", "--retry-lock", "--stuck-request-timeout",
        "--http-user-agent", "--compression", "--pack-size",
    )  # fmt: skip
    option_words = (
        "--exclude", "-e", "--iexclude", "--exclude-file", "--iexclude-file",
        "--exclude-if-present", "--exclude-larger-than", "--tag", "--host", "-H", "--hostname",
        "--time", "--parent", "--group-by", "-g", "--read-concurrency", "--files-from",
        "--files-from-verbatim", "--files-from-raw", "--stdin-filename",
    )  # fmt: skip
    path_words = (
        "--exclude", "-e", "--iexclude", "--exclude-file", "--iexclude-file", "--files-from",
        "--files-from-verbatim", "--files-from-raw",
    )  # fmt: skip
    repository_variable = "RESTIC_REPOSITORY"
    repository_switches = (
        "--insecure-tls", "--insecure-no-password", "--no-cache", "--cleanup-cache",
    )  # fmt: skip

    # A backup

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return the moment, the job's tag, the excludes of what is not frozen, and the parent."""
        words = []
        if not has_option([*job.command, *job.options], "--time"):
            words = ["--time", when(request.moment, request.zone)]
        tags = [value or "" for name, value in self.options(job) if name == "--tag"]
        tag = ":".join(filter(None, (tag_of(job), request.aside)))
        if tag not in _words(tags):
            words += ["--tag", tag]
        for place in request.skipped:
            words += ["--exclude", f"{_literal(place)}/*"]
        return words if request.parent is None else [*words, "--parent", request.parent]

    def without_lists(self, job: Job) -> tuple[Job, tuple[Listing, ...]]:
        """Take the lists of --files-from and its kin out of the options."""
        found = tuple(
            Listing(value or "", _LISTS[name]) for name, value in self.options(job)
            if name in _LISTS and not job.plain
        )  # fmt: skip
        if not found:
            return job, ()
        command, options = (
            tuple(without(words, _LISTS, self.with_word)) for words in (job.command, job.options)
        )
        return job._replace(command=command, options=options), found

    def check_words(self, job: Job, script: str) -> None:
        """Refuse lists in a wrapper as well, and the tag of another job.

        What bears that is forgotten as one of that job's, and in place of its own.
        """
        super().check_words(job, script)
        tags = _words([value or "" for name, value in self.options(job) if name == "--tag"])
        theirs = [tag for tag in tags if tag.startswith(_TAG) and tag != tag_of(job)]
        if theirs and not job.plain:
            raise Refusal(
                f"--tag {theirs[0]} is the tag of another job, whose retention would count this "
                "one's backups as its own; leave it out",
                EX_CONFIG,
            )
        named = [name for name, _ in self.options(job, script) if name in _LISTS]
        if named and not job.plain:
            raise Refusal(
                f"{job.command[0]} calls restic with {named[0]}, so what it backs up is not known; "
                f"leave that out there and give it as an option, or say --paths-from",
                EX_CONFIG,
            )

    def reads_input(self, options: Sequence[tuple[str, str | None]]) -> bool:
        """Look for --stdin and its kin."""
        return is_switched_on(options, "--stdin", "--stdin-from-command")

    def files_of_patterns(self, job: Job, script: str = "") -> tuple[str, ...]:
        """Return those of --exclude-file and its kin."""
        return tuple(
            value for name, value in self.options(job, script)
            if name in restic_proof.PATTERN_FILES and value
        )  # fmt: skip

    def stream_words(self, stream: str) -> list[str]:
        """Return what makes restic read its standard input; the name is the backup's only path."""
        return ["--stdin", "--stdin-filename", stream]

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Add the feature to what the user has set."""
        features = environment.get("RESTIC_FEATURES", "")
        if FEATURE in features:
            return {}
        return {"RESTIC_FEATURES": ",".join(filter(None, (features, f"{FEATURE}=true")))}

    def scratch(
        self, job: Job, known: Mapping[str, str], script: str
    ) -> tuple[list[str], list[str]]:
        """Return restic's cache; it is restic's alone if it bears the mark of one, or is new."""
        options = self.options(job, script)
        if is_switched_on(options, "--no-cache"):
            return [], []
        default = f"{places.caches(known)}/restic"
        named = last_value(options, "--cache-dir") or known.get("RESTIC_CACHE_DIR") or default
        is_cache = places.is_cache(os.path.realpath(named))
        return ([named], []) if is_cache else ([], [named])

    def repository(self, job: Job, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return the directory that an option or variable names, if that is a local one."""
        named = last_value(self.options(job, script), "--repo", "-r")
        if named is None and not self.hides(job, script, "RESTIC_REPOSITORY"):
            named = self.known(environment, script).get("RESTIC_REPOSITORY")
        if named is None:
            return None
        path = named.removeprefix("local:")
        return path if path.startswith("/") else None

    def leads_to(self, job: Job, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return what the option, the wrapper, the variable or its file says."""
        options = self.options(job, script)
        named, file = last_value(options, "--repo", "-r"), last_value(options, "--repository-file")
        if named is None and file is None:
            names = ("RESTIC_REPOSITORY", "RESTIC_REPOSITORY_FILE")
            if any(self.hides(job, script, name) for name in names):
                return None
            known = self.known(environment, script)
            named, file = (known.get(name) or None for name in names)
        told = named or file
        if told is None or "$" in told or "`" in told:
            return None
        named = named or _in_file(told)
        if re.match(_REMOTE, named):
            return named.rstrip("/")
        # The client starts in /.
        return os.path.realpath(os.path.join("/", named.removeprefix("local:")))

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read the summary, which is text or, with --json, a line of JSON."""
        return restic_figures.read(decode(output))

    def complaint(self, line: str) -> str | None:
        """Return restic's errors and warnings, out of their JSON where they are in one."""
        if not line.startswith("{"):
            return None if re.match(_ROUTINE, line) else line
        told = json_objects(line)
        if not told:
            return line
        kind, error = told[0].get("message_type"), told[0].get("error")
        if kind == "error":
            said = error.get("message") if isinstance(error, dict) else error
            return f"{told[0].get('item') or 'error'}: {said}"
        return str(told[0].get("message")) if kind == "exit_error" else None

    # The proof

    def has_backups(self, reader: Reader, names: Collection[str]) -> bool:
        """Ask for the list of snapshots; one that was given a tag has another id since.

        The names may be the short ones that restic prints. A wrapper may write to several
        repositories, and is asked about one.
        """
        answer = ask(reader, list, ("snapshots", "--no-lock", "--json"))
        with understood():
            known = [str(each.get(name) or "") for each in answer for name in ("id", "original")]
        return any(each.startswith(tuple(names)) for each in known)

    def keeps(self, mode: int) -> bool:
        """Say whether restic keeps a file of this st_mode: all but sockets."""
        return not stat.S_ISSOCK(mode)

    def one_file_system(self, job: Job, script: str) -> bool:
        """Look for --one-file-system, or -x among its short options."""
        return is_switched_on(self.options(job, script), "--one-file-system", "-x")

    def proves_itself(
        self,
        job: Job,
        request: Request,
        figures: Figures,
        output: bytes,
        points: Mapping[str, bool],
        script: str = "",
    ) -> bool:
        """Take a snapshot of one path for proof if files are in it, and no other path can be."""
        # A script may have restic's name.
        if script or not self.is_plain(job):
            return False
        if tuple(points) != request.paths or len(request.paths) != 1:
            return False
        options = self.options(job)
        others = [value for name, value in options if name == "" and value not in self.subcommand]
        others += [value for name, value in options if name in _LISTS]
        known = all(name in _KNOWN for name, _ in options)
        files = bool(figures.files) or not points[request.paths[0]]
        alone = known and not others and not self.one_file_system(job, "")
        return alone and files and len(figures.snapshots) == 1

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
        """Ask by ``restic ls``, and first for the snapshot's name where that was not seen."""
        options = self.options(job, script)
        asked = self._asked(reader, job, request, since, script)
        seen = request.captured and figures.files is not None
        skips = is_switched_on(options, "--skip-if-unchanged") and not is_switched_on(
            options, "--dry-run", "-n"
        )
        parent = last_value(options, "--parent") or request.parent
        return restic_proof.prove(
            reader, asked, points, figures.snapshots,
            (parent or "") if (figures.unchanged or (skips and not seen)) else None,
        )  # fmt: skip

    def _asked(
        self, reader: Reader, job: Job, request: Request, since: float, script: str
    ) -> restic_proof.Asked:
        options = self.options(job, script)
        return restic_proof.Asked(
            host=host_of(job, reader.environment, script),
            paths=request.paths if request.stream is None else (request.stream,),
            time=last_value(options, "--time") or when(request.moment, request.zone),
            since=since,
            before=None if has_option([*job.command, *job.options], "--time") else request.moment,
        )

    def said_of_stream(
        self, job: Job, request: Request, figures: Figures, output: bytes, script: str = ""
    ) -> Streamed | None:
        """Take the JSON of a backup: its text says the size in three digits only."""
        objects = [each for each in json_objects(decode(output)) if "snapshot_id" in each]
        if script or not self.is_plain(job) or len(objects) != 1 or len(figures.snapshots) != 1:
            return None
        return Streamed(figures.snapshots, figures.size if figures.files == 1 else None)

    def prove_stream(
        self,
        reader: Reader,
        job: Job,
        request: Request,
        figures: Figures,
        since: float,
        script: str = "",
    ) -> Streamed:
        """Ask by ``restic ls`` of the directory that the stream is in."""
        asked = self._asked(reader, job, request, since, script)
        return restic_proof.prove_stream(reader, asked, figures.snapshots)

    def likely_reason(self, job: Job, script: str, missing: Missing) -> str:
        """Name what keeps it out: an exclude, --one-file-system, or a wrapper."""
        inside = f"{missing.point.rstrip('/')}/\x01" if missing.empty else missing.point
        told = self.excluded_by(job, script, inside)
        if told:
            return told
        if missing.empty and self.one_file_system(job, script):
            return (
                "with --one-file-system restic does not go into the file systems below a path; "
                "leave that option out, what is not chosen does not get into the backup anyway"
            )
        return self.wrapper_keeps_words(job, script) or (
            "look for an exclude in restic's options, its exclude files or the wrapper that "
            "keeps it out"
        )

    def excluded_by(self, job: Job, script: str, path: str) -> str | None:
        """Look into the options, those of a wrapper and files of patterns as well."""
        for pattern in restic_proof.patterns(self.options(job, script)):
            if restic_proof.excludes(pattern, path):
                return (
                    f"the exclude '{pattern}' keeps all of it out; if that is meant, leave the "
                    "dataset out with -x, so that it is not counted on"
                )
        return None

    def is_repository(self, directory: str) -> bool:
        """Say whether a directory has what each of restic's repositories begins with."""
        names = ("config", "data", "index", "keys", "snapshots")
        return all(os.path.exists(f"{directory}/{name}") for name in names)

    # What its words mean

    def is_incomplete(self, status: int) -> bool:
        """Say whether restic made a backup without the files that it could not read."""
        return status == INCOMPLETE

    def lacking(self, text: str) -> str | None:
        """Find restic's warnings of files that it could not read and paths that it passed over."""
        found = re.search(_LACKING, text)
        return found[0].strip() if found else None

    def locked(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Explain restic's locks."""
        from kopiatomic.clients import restic_locks

        by_hand = by_hand or ByHand(self.name)
        if status != INCOMPLETE and restic_locks.is_bad(text):
            return (
                "a lock in the repository cannot be read; once no restic uses the repository, on "
                f"any machine: {by_hand('unlock --remove-all')}"
            )
        return restic_locks.explain(text, by_hand("unlock")) if status == LOCKED else None

    def hint(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Explain restic's exit statuses."""
        if f'unknown feature flag "{FEATURE}"' in text:
            return (
                f"this restic no longer knows {FEATURE}; "
                "please report it, and use --plain until it is mended"
            )
        by_hand = by_hand or ByHand(self.name)
        told = self.locked(status, text, by_hand)
        if told:
            return told
        return {
            INCOMPLETE: "some files could not be read, the backup is incomplete; "
            "restic named them above",
            NO_REPOSITORY: f"the repository is not there; if it is to be made: {by_hand('init')}",
            WRONG_PASSWORD: "the repository's password is wrong",
        }.get(status) or super().hint(status, text, by_hand)

    def network_away(self, status: int, messages: str) -> str | None:
        """Look into restic's last words, and those of the ssh or rclone that it started.

        It has tried for a quarter of an hour by then, but where the connection is made by
        ssh or rclone (withRetries in its internal/global, and its internal/backend/sftp).
        """
        from kopiatomic.clients import network

        if status in (INCOMPLETE, NO_REPOSITORY, LOCKED, WRONG_PASSWORD) or status >= 128:
            return None
        if re.search(_DENIED, messages):
            return None
        lines = (self.complaint(line.strip()) for line in messages.split("\n"))
        said = [line.split("\n")[0] for line in lines if line and re.match(_LAST_WORDS, line)]
        lost = not any(line.startswith("subprocess ") for line in said)
        return next(
            (each for each in reversed(said)
             if network.is_away(each) or (lost and _NO_SESSION in each)),
            None,
        )  # fmt: skip

    def hint_between(self, job: Job, status: int, text: str = "") -> str | None:
        """Explain an exit status, but not the one about files that a backup could not read."""
        return None if status == INCOMPLETE else super().hint_between(job, status, text)

    # The parent

    def parent(
        self,
        door: Door,
        job: Job,
        paths: Sequence[str],
        last_paths: Sequence[str] | None,
        environment: Mapping[str, str],
        script: str = "",
    ) -> str | None:
        """Return the snapshot to name as parent, or None to leave it to restic.

        restic looks for an earlier snapshot that holds all of today's paths. When a
        dataset was added there is none, and it would read every file again; then we
        name the snapshot that has most of the paths. While the paths stay the same
        nothing is asked. A repository that does not answer is the backup's to report.
        """
        if job.plain or any(name in _DECIDE_PARENT for name, _ in self.options(job, script)):
            return None
        if last_paths is not None and set(paths) <= set(last_paths):
            return None
        if self.wrapper_keeps_words(job, script):
            return None  # it would make a backup, whatever it is asked for
        from kopiatomic.clients import restic_parent

        try:
            argv = [*self.base_command(job), "--no-lock", "snapshots", "--json"]
            said = door.run(argv, environment=environment, time_limit=LISTING_LIMIT).stdout
            answer = json_value(encode(said), list)
            names = [as_stored(path) for path in paths]
            return restic_parent.choose(answer, names, host_of(job, environment, script))
        except (Refusal, CommandFailed, ValueError, KeyError, TypeError):
            return None

    # Upkeep

    def steps(
        self, job: Job, wishes: Wishes, environment: Mapping[str, str], script: str = ""
    ) -> list[Step]:
        """Return the check, and forget and prune, as far as they were asked for."""
        from kopiatomic.clients import restic_retention

        if wishes.maintenance:
            raise Refusal("--maintenance is kopia's; restic has --forget and --prune")
        base = self.base_command(job)
        steps = []
        if wishes.verify is not None:
            share = f" with {wishes.verify:g} % of the data" if wishes.verify else ""
            subset = [f"--read-data-subset={wishes.verify:g}%"] if wishes.verify else []
            steps.append(Step(CHECK, f"check{share}", (*base, "check", *subset)))
        if wishes.forget is not None:
            title = "forget and prune" if wishes.prune else "forget"
            host = None
            if not wrapper.works_out(script, "RESTIC_HOST"):
                host = host_of(job, environment, script)
            words = restic_retention.forget_words(wishes.forget, host, tag_of(job), wishes.prune)
            also = (PRUNE,) if wishes.prune else ()
            steps.append(Step(FORGET, title, (*base, "forget", *words), also))
        elif wishes.prune:
            steps.append(Step(PRUNE, "prune", (*base, "prune")))
        if not steps:
            raise Refusal("--upkeep: say what is to be done: --verify, --forget or --prune")
        return steps

    def ready(
        self,
        reader: Reader,
        job: Job,
        wishes: Wishes,
        steps: Sequence[Step],
        past: Past,
        script: str = "",
    ) -> Ready:
        """Look for stale locks, and for the job's backups from before they bore its tag."""
        from kopiatomic.clients import restic_locks, restic_retention

        if self.wrapper_keeps_words(job, script):
            return Ready(tuple(steps))  # it would make a backup, whatever it is asked for
        found, withheld = [restic_locks.ready(reader)], ""
        if wishes.forget is not None:
            own = host_of(job, reader.environment, script)
            by_hand = self.by_hand(job)
            found.append(
                restic_retention.ready(reader, tag_of(job), wishes.forget, own, past, by_hand)
            )
            base = len(self.base_command(job))
            words = next(step.argv[base:] for step in steps if step.kind == FORGET)
            withheld = restic_retention.withheld(reader, words, past)
        before = [step for each in found for step in each.steps]
        unlock = [step for step in before if step.kind == UNLOCK]
        first = [step for step in before if step.kind in (TAG, FORGET)]
        all_steps = list(unlock)
        for step in steps:
            all_steps += [*(first if step.kind == FORGET else []), step]
        return Ready(
            tuple(all_steps),
            tuple(note for each in found for note in each.notes),
            tuple(doubt for each in found for doubt in each.doubts),
            withheld,
        )

    def step_told(self, kind: str, text: str) -> str | None:
        """Return how many locks restic has removed."""
        found = re.search(r"(?m)^successfully removed ([0-9]{1,9}) locks$", text)
        if kind != UNLOCK or found is None:
            return None
        return f"restic removed {found[1]} stale lock{'' if found[1] == '1' else 's'}"

    def step_problem(self, kind: str, text: str) -> str | None:
        """Notice where restic goes on, and may end well, but removed nothing."""
        if kind == TAG and re.search(_NOT_TAGGED, text):
            return (
                "restic could not give all of the job's backups its tag, which is right if this "
                "machine may only add to the repository: leave --forget to one that may remove"
            )
        if kind == FORGET and "unable to remove snapshot/" in text:
            return (
                "restic could not remove snapshots, which is right if this machine may only add "
                "to the repository: leave --forget and --prune to one that may remove"
            )
        return None

    def step_hint(self, job: Job, kind: str, status: int, text: str) -> str | None:
        """Explain a failed check."""
        known = super().step_hint(job, kind, status, text)
        if known is None and status == 1 and kind == CHECK:
            return (
                "the repository may be damaged: keep all copies, prune nothing, and read restic's "
                "chapter Troubleshooting before anything else"
            )
        return known

    # The drill

    def sources(
        self, reader: Reader, job: Job, environment: Mapping[str, str], script: str = ""
    ) -> list[Source]:
        """Return the last snapshot of this job's host for each of its groups of paths."""
        host = host_of(job, environment, script)
        words = ("snapshots", "--json", "--latest", "1", "--host", host)
        answer = ask(reader, list, words)
        with understood():
            return [
                Source(
                    backup=str(each["id"]),
                    title=", ".join(map(str, each["paths"])),
                    moment=(nanoseconds(each["time"]) or 0) / 1e9,
                    paths=tuple(map(str, each["paths"])),
                )
                for each in answer
            ]

    def stream_in(self, reader: Reader, source: Source) -> File | None:
        """Return the only file of the snapshot, if it is the only path of it."""
        path = source.paths[0]
        size = restic_proof.size_in(reader, source.backup, path)
        return None if size is None else File(path, size, None, ("dump", source.backup, path))

    def files(
        self,
        reader: Reader,
        room: "Room",
        tally: Tally,
        wanted: int,
        size_limit: int,
        rng: "random.Random",
    ) -> list[File]:
        """Return files of a snapshot by one ``restic ls``; memory is for those only.

        ``restic dump`` is asked for a file by its path, which takes no pattern; a
        path that is not UTF-8 it does not tell us in a form to ask with.
        """
        from kopiatomic.clients.restic_files import Choice

        choice = Choice(tally, wanted, rng)
        listed = False
        with understood():
            for line in reader.lines("ls", "--json", tally.source.backup):
                if not listed:
                    # What comes before the snapshot itself is a wrapper's.
                    listed = line.startswith(b"{") and b'"snapshot"' in line
                elif choice.watches(line):
                    choice.take(json.loads(marked(line)), size_limit)
            if not listed:
                raise ValueError("no snapshot")
        choice.settle()
        return choice.files()


def _in_file(path: str) -> str:
    """Return the repository that a file names, or the file's path where it cannot be read."""
    try:
        with open(os.path.join("/", path), "rb") as file:
            return decode(file.read(8192)).strip() or path
    except (OSError, ValueError):
        return path


def _literal(path: str) -> str:
    """Return a path as an exclude pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path.rstrip("/"))


def tag_of(job: Job) -> str:
    """Return the tag that the backups of a job bear.

    A job's name holds nothing that restic would take apart: of tags, that is a comma and
    the space around it (splitTagList() in its internal/data).
    """
    return f"{_TAG}{job.name}"


def _words(tags: Sequence[str]) -> list[str]:
    """Return the single tags in the values of --tag."""
    return re.split(r"\s*,\s*", ",".join(tags))


def host_of(job: Job, environment: Mapping[str, str], script: str = "") -> str:
    """Return the host name under which restic stores this job's backups."""
    restic = Restic()
    given = last_value(restic.options(job, script), "--host", "-H", "--hostname")
    known = restic.known(environment, script)
    return given or known.get("RESTIC_HOST") or os.uname().nodename


# What restic may say on standard error in any run.
_ROUTINE = (
    r"(repository \w+ opened|created new cache|using parent|no parent snapshot|reading repository"
    r"|.* operation successful after \d+ retries)"
)

# The switches of a backup that add nothing to it, and do not cross file systems otherwise.
_KNOWN = {
    "", *Restic.repository_words, *Restic.repository_switches, *Restic.option_words,
    "-v", "--verbose", "-q", "--quiet", "--json", "-f", "--force", "--no-scan",
    "--exclude-caches", "--with-atime", "--ignore-inode", "--ignore-ctime",
}  # fmt: skip
