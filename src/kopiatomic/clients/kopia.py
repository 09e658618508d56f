"""All that is special to kopia."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Collection, Mapping, Sequence

from kopiatomic.clients import kopia_proof, places, wrapper
from kopiatomic.clients.base import COLOUR, Client
from kopiatomic.clients.kopia_proof import has_entries
from kopiatomic.clients.parsing import (
    as_marked,
    ask,
    count,
    has_option,
    json_objects,
    last_value,
    marked,
    member,
    nanoseconds,
    parse_options,
    total,
    understood,
)
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import (
    CHECK,
    MAINTENANCE,
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
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.command import decode, quote

if TYPE_CHECKING:
    import random
    from typing import Any

    from kopiatomic.clients.room import Room

# The line with which kopia closes each source: " * 0 hashing, 1 hashed (2 B), ...".
_DONE = r" \* \d+ hashing, ([0-9]{1,18}) hashed "

# How it tells of each backup where that is not in JSON, and of one that it did not keep.
_CREATED = r"(?m)^Created\S* snapshot with root \S+ and ID ([0-9a-f]{16,64}) in "
_UNCHANGED = "Not saving snapshot because no files have been changed"

# How kopia names the one who may do maintenance.
_OWNER = r"must be run by designated user: (\S{1,300})"

# So many of its last lines may say why it failed.
_LAST_WORDS = 2

# What says where a storage is, in kopia's configuration: of all its kinds, and of a server.
_WHERE = (
    "bucket", "container", "endpoint", "folderID", "host", "path", "port", "prefix", "remotePath",
    "storageAccount", "storageDomain", "url",
)  # fmt: skip

# What kopia says where --ignore-file-errors or its policy made it go on.
_IGNORED = r"(?m)^.{0,200}Ignored [1-9][0-9]* error.{0,500}$"


class Kopia(Client):
    """kopia(1)."""

    name = "kopia"
    subcommand = ("snapshot", "create")
    repository_words = (
        "--config-file", "-p", "--password", "--log-dir", "--log-file", "--log-level",
        "--file-log-level",
    )  # fmt: skip
    repository_variable = "KOPIA_CONFIG_PATH"
    repository_switches = (
        "--progress", "--no-progress", "--use-keyring", "--no-use-keyring",
        "--disable-file-logging", "--disable-content-log",
    )  # fmt: skip
    option_words = (
        "--upload-limit-mb", "--description", "--force-hash", "--parallel", "--start-time",
        "--end-time", "--stdin-file", "--tags", "--pin", "--override-source", "--log-dir-detail",
        "--log-entry-detail", "--path", "--cache-directory", "--metrics-directory",
        "--diagnostics-output-directory", "--profile-dir",
    )  # fmt: skip
    secret_options = ("-p",)

    # A backup

    def reads_input(self, options: Sequence[tuple[str, str | None]]) -> bool:
        """Look for --stdin-file; what stands beside it is a name, and not read."""
        return any(name == "--stdin-file" for name, _ in options)

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return the moment, and what makes kopia tell its results."""
        given = [*job.command, *job.options]
        words = []
        if not has_option(given, "--start-time"):
            words = ["--start-time", _when(request.moment)]
        if request.captured and not has_option(given, "--json", "--no-json", "--no-progress"):
            # Its last line of progress says how many files it read, which its JSON does not.
            # What it has excluded is in its statistics alone.
            words += ["--json", "--json-verbose", "--progress"]
        return words

    def stream_words(self, stream: str) -> list[str]:
        """Return what makes kopia read its standard input, into a file of a source of its own.

        The source is a directory that need not be there; its retention is for each source, so
        two volumes cannot share one.
        """
        return ["--stdin-file", os.path.basename(stream), stream]

    def speaks_to_us_alone(self, words: Sequence[str]) -> bool:
        """Say whether kopia prints JSON, which is not shown."""
        return "--json" in words

    def scratch(
        self, job: Job, known: Mapping[str, str], script: str
    ) -> tuple[list[str], list[str]]:
        """Return kopia's cache and logs, and where its configuration is.

        A directory that has something else in it than a cache is not kopia's alone.
        """
        options = self.options(job, script)
        default = f"{places.caches(known)}/kopia"
        logs = last_value(options, "--log-dir") or known.get("KOPIA_LOG_DIR") or default
        config = self.config(job, known, script)
        caches = [
            _cache_in(config), known.get("KOPIA_CACHE_DIRECTORY"),
            last_value(options, "--cache-directory"),
        ]  # fmt: skip
        named = [each for each in caches if each and os.path.isabs(each)]
        own = [default, *(f"{logs}/{name}" for name in ("cli-logs", "content-logs"))]
        own += [each for each in named if places.is_cache(each)]
        return own, [os.path.dirname(config or ""), logs, *named]

    def config(self, job: Job, known: Mapping[str, str], script: str) -> str | None:
        """Return the path of kopia's configuration file, None where it cannot be told."""
        named = last_value(self.options(job, script), "--config-file")
        if named is None and self.hides(job, script, "KOPIA_CONFIG_PATH"):
            return None
        named = named or known.get("KOPIA_CONFIG_PATH") or "repository.config"
        if "$" in named or "`" in named:
            return None
        if "/" in named:
            return named
        return f"{places.configuration(known)}/kopia/{named}"

    def repository(self, job: Job, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return the directory that a wrapper connects to, or the one in kopia's configuration."""
        for words in wrapper.calls(script, self.name):
            named = last_value(parse_options(words, {"--path"}), "--path")
            if words[:1] == ["repository"] and "filesystem" in words and named is not None:
                return named if named.startswith("/") and "$" not in named else None
        try:
            config = self.config(job, self.known(environment, script), script)
            storage = _read(config)["storage"]
            return str(storage["config"]["path"]) if storage["type"] == "filesystem" else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def leads_to(self, job: Job, environment: Mapping[str, str], script: str = "") -> str | None:
        """Return what the wrapper connects to, or what is in the configuration file."""
        for words in wrapper.calls(script, self.name):
            if words[:2] == ["repository", "connect"]:
                called = quote(words)
                return None if "$" in called or "`" in called else called
        config = self.config(job, self.known(environment, script), script)
        if config is None:
            return None
        try:
            held = _read(os.path.join("/", config))
            return _place_in(held.get("storage") or {"type": "server", "config": held["apiServer"]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return os.path.realpath(os.path.join("/", config))

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read the JSON on standard output and the last lines of progress."""
        manifests = [each for each in json_objects(decode(output)) if "rootEntry" in each]
        said = decode(messages)
        sums = [member(each, "rootEntry", "summ") for each in manifests]
        stats = [each["stats"] for each in manifests if "stats" in each]
        done = re.findall(_DONE, said)
        names = [str(each["id"]) for each in manifests if "id" in each]
        # What it calls hashed are files and symbolic links; what it uploads it tells too early.
        return Figures(
            files=total(sums, "files") + total(sums, "symlinks") if sums else None,
            size=total(sums, "size") if sums else None,
            new_or_changed=sum(map(int, done)) if done else None,
            snapshots=tuple(names or re.findall(_CREATED, said)),
            unchanged=_UNCHANGED in said,
            # Its estimate of what there is to do counts them as well, as far as it gets.
            excluded=any(total(stats, f"excluded{each}Count") for each in ("File", "Dir")),
        )

    def complaint(self, line: str) -> str | None:
        """Return a line on standard error that is neither progress nor said in every run."""
        return None if re.match(_ROUTINE, line) else line

    def network_away(self, status: int, messages: str) -> str | None:
        """Look into kopia's last words: it tells at its end why it failed, without progress."""
        from kopiatomic.clients import network

        if status >= 128:
            return None
        lines = (re.sub(COLOUR, "", line).strip() for line in re.split("[\r\n]", messages))
        said = [line for line in lines if line and not re.match(_ROUTINE, line)][-_LAST_WORDS:]
        return next((line for line in reversed(said) if network.is_away(line)), None)

    def lacking(self, text: str) -> str | None:
        """Find what kopia says where it was told to go on after errors."""
        found = re.search(_IGNORED, text)
        return found[0].strip() if found else None

    def is_repository(self, directory: str) -> bool:
        """Say whether a directory has the file that each repository of kopia's has."""
        return os.path.exists(f"{directory}/kopia.repository.f")

    def about_live(self, skipped: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Give the commands that make kopia pass over what it writes itself."""
        policies = [["kopia", "policy", "set", *_ignores(skipped, path), path] for path in paths]
        return [
            "kopia cannot be told to pass over what it writes itself; if you do not want it in the "
            f"backup: {quote(words)}"
            for words in policies
            if len(words) > 4
        ]

    # The proof

    def has_backups(self, reader: Reader, names: Collection[str]) -> bool:
        """Ask for the list of manifests; there is a backup for each path.

        The names may be the beginnings of ids, as reports show them.
        """
        answer = kopia_proof.listed(reader)
        with understood():
            known = [str(each["id"]) for each in answer]
        return all(any(each.startswith(name) for each in known) for name in names)

    def keeps(self, mode: int) -> bool:
        """Say whether kopia keeps a file of this st_mode: files, links and directories."""
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)

    def proves_itself(
        self,
        job: Job,
        request: Request,
        figures: Figures,
        output: bytes,
        points: Mapping[str, bool],
        script: str = "",
    ) -> bool:
        """Take the JSON of a backup for proof of its path: it counts what is in it.

        It is printed before kopia applies the retention of the source; see _may_expire().
        """
        if self._may_expire(job, script):
            return False
        try:
            with understood():
                held = {
                    kopia_proof.path_of(each): has_entries(kopia_proof.root_of(each))
                    for each in _whole(output)
                    if kopia_proof.is_of_its_path(each)
                }
        except ClientFailed:
            return False
        return bool(points) and all(
            as_marked(point) in held and held[as_marked(point)] >= full
            for point, full in points.items()
        )

    def _may_expire(self, job: Job, script: str) -> bool:
        """Say whether kopia may remove a backup as soon as it has made it, as one of many.

        One of an existing snapshot bears the time of that, so its source may have enough newer
        ones. A wrapper that keeps its words does not have that time from us. The user may have
        said a time, too.
        """
        if last_value(self.options(job, script), "--start-time") is not None:
            return True
        return job.snapshot is not None and not self.wrapper_keeps_words(job, script)

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
        """Ask by ``kopia show``, and first for the manifests of the backups."""
        asked = self._asked(job, request, figures, since, script)
        return kopia_proof.prove(reader, asked, points)

    def _asked(
        self, job: Job, request: Request, figures: Figures, since: float, script: str
    ) -> kopia_proof.Asked:
        options = self.options(job, script)
        return kopia_proof.Asked(
            paths=request.paths if request.stream is None else (request.stream,),
            moment=None if last_value(options, "--start-time") else request.moment,
            since=since,
            made=figures.snapshots,
            unchanged=figures.unchanged or not request.captured,
        )

    def said_of_stream(
        self, job: Job, request: Request, figures: Figures, output: bytes, script: str = ""
    ) -> Streamed | None:
        """Take the JSON of a backup: it counts what is in it."""
        try:
            with understood():
                made = {str(each["id"]): each for each in _whole(output)}
                return kopia_proof.streamed(made, request.stream or "") if made else None
        except ClientFailed:
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
        """Ask for the manifests of the backups, which count what is in them."""
        asked = self._asked(job, request, figures, since, script)
        return kopia_proof.prove_stream(reader, asked)

    def likely_reason(self, job: Job, script: str, missing: Missing) -> str:
        """Name what keeps it out: a policy, as far as nothing else does."""
        if missing.removed:
            show = self.by_hand(job)(f"policy show {quote([missing.removed])}")
            return (
                "the reason is likely to be kopia's retention, which removes a backup at once if "
                f"its source has enough newer ones; see {show}, and let the policy keep more"
            )
        show = self.by_hand(job)(f"policy show {quote([missing.point])}")
        ignored = (
            "a rule to ignore what is in it, in the policy or a .kopiaignore, or a CACHEDIR.TAG"
            if missing.empty
            else "a policy of one-file-system for a path above it, a rule to ignore it, in the "
            "policy or a .kopiaignore, or an action that names another directory in its place"
        )
        return self.wrapper_keeps_words(job, script) or (
            f"the reason is likely to be {ignored}: {show}; if that is meant, leave the dataset "
            "out with -x, so that it is not counted on"
        )

    # Upkeep

    def steps(
        self, job: Job, wishes: Wishes, environment: Mapping[str, str], script: str = ""
    ) -> list[Step]:
        """Return the verification and the full maintenance, as far as they were asked for."""
        if wishes.forget is not None or wishes.prune:
            raise Refusal(
                "--forget and --prune are restic's; kopia removes old snapshots by its retention "
                "policies, and their data by --maintenance"
            )
        base = self.base_command(job)
        steps = []
        if wishes.verify is not None:
            share = f" with {wishes.verify:g} % of the files" if wishes.verify else ""
            percent = f"--verify-files-percent={wishes.verify:g}"
            argv = (*base, "snapshot", "verify", percent)
            steps.append(Step(CHECK, f"snapshot verify{share}", argv))
        if wishes.maintenance:
            argv = (*base, "maintenance", "run", "--full")
            steps.append(Step(MAINTENANCE, "full maintenance", argv))
        if not steps:
            raise Refusal("--upkeep: say what is to be done: --verify or --maintenance")
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
        """Look for sources that no job backs up any more: kopia never removes their backups."""
        from kopiatomic.clients import kopia_sources

        if self.wrapper_keeps_words(job, script):
            return Ready(tuple(steps))
        try:
            answer = ask(reader, list, ("snapshot", "list", "--json"))
            with understood():
                notes = kopia_sources.given_up(answer, past, self.by_hand(job))
        except ClientFailed as error:
            doubt = f"sources that no job backs up could not be looked for: {error}"
            return Ready(tuple(steps), doubts=((doubt, error.status),))
        return Ready(tuple(steps), tuple(notes))

    def step_hint(self, job: Job, kind: str, status: int, text: str) -> str | None:
        """Explain who may do maintenance."""
        owner = re.search(_OWNER, text)
        if owner:
            take_over = self.by_hand(job)("maintenance set --owner=me")
            return (
                f"the maintenance of this repository belongs to {owner[1]} alone: leave "
                f"it to that one, or take it over for good: {take_over}"
            )
        if "only on direct repository" in text:
            return (
                "this machine reaches the repository through a kopia server, which does the "
                "maintenance itself or leaves it to a machine that has the storage; do it there"
            )
        return super().step_hint(job, kind, status, text)

    # The drill

    def sources(
        self, reader: Reader, job: Job, environment: Mapping[str, str], script: str = ""
    ) -> list[Source]:
        """Return the last complete backup of each source of this user and host."""
        newest: dict[str, Source] = {}
        answer = ask(reader, list, ("snapshot", "list", "--json"))
        with understood():
            for each in answer:
                if each.get("incomplete"):
                    continue
                path = str(each["source"]["path"])
                moment = (nanoseconds(each["startTime"]) or 0) / 1e9
                if path not in newest or newest[path].moment < moment:
                    root = each["rootEntry"]
                    newest[path] = Source(str(each["id"]), path, moment, path, root, (path,))
        return [newest[path] for path in sorted(newest)]

    def stream_in(self, reader: Reader, source: Source) -> File | None:
        """Return the only file of the source, which is called as the source is."""
        name = os.path.basename(source.path)
        with understood():
            root = str((source.root or {})["obj"])
            for entry in kopia_proof.Directories(reader)(root):
                if entry["name"] == name and entry["type"] == "f":
                    path = f"{source.path}/{name}"
                    return File(path, count(entry.get("size")), None, ("show", str(entry["obj"])))
        return None

    def files(
        self,
        reader: Reader,
        room: Room,
        tally: Tally,
        wanted: int,
        size_limit: int,
        rng: random.Random,
    ) -> list[File]:
        """Return files of a backup; only the directories on the way to them are read.

        Every directory entry says how many files there are below it, so the number
        of a file leads to it. A file is asked for by its object, so its name does
        not matter.
        """
        from kopiatomic.clients.kopia_files import choose

        return choose(reader, room, tally, wanted, size_limit, rng)

    def restore(self, reader: Reader, room: Room, files: Mapping[str, File]) -> set[str]:
        """Have all of them restored by one process, by their objects."""
        from kopiatomic.clients import kopia_objects

        return kopia_objects.write(reader, room, {name: files[name].fetch[1] for name in files})


def _whole(output: bytes) -> list[dict[str, object]]:
    """Return what kopia printed of the backups that it has made and not broken off."""
    return [
        each for each in json_objects(decode(marked(output)))
        if "rootEntry" in each and each.get("id") and not each.get("incomplete")
    ]  # fmt: skip


def _read(config: str | None) -> dict[str, Any]:
    with open(config or os.devnull, encoding="utf-8") as file:
        return dict(json.load(file))


def _place_in(storage: Mapping[str, Any]) -> str:
    """Return what tells where a storage is: not with which key, and with what limits."""
    kind, config = str(storage.get("type")), dict(storage["config"])
    place = {name: str(config[name]).rstrip("/") for name in _WHERE if config.get(name)}
    if kind == "filesystem":
        place["path"] = os.path.realpath(os.path.join("/", str(config["path"])))
    return json.dumps([kind, place or config], sort_keys=True)


def _cache_in(config: str | None) -> str | None:
    """Return the cache directory in a configuration file, relative to which kopia writes it."""
    try:
        named = str(_read(config)["caching"]["cacheDirectory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return os.path.normpath(os.path.join(os.path.dirname(config or ""), named))


def _when(seconds: float | None) -> str:
    """Return a moment in universal time, which kopia takes together with the zone."""
    if seconds is None:
        return "TIME-OF-SNAPSHOT"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _ignores(skipped: Sequence[str], path: str) -> list[str]:
    above = path.rstrip("/") + "/"
    return [f"--add-ignore=/{each[len(above) :]}/*" for each in skipped if each.startswith(above)]


# What kopia says on standard error in any run: progress, and what it does of its maintenance.
_ROUTINE = (
    r"([|/\\*-] \d+ hashing, |Snapshotting \S|Created\S* snapshot with root |Cleaned up \d+ logs"
    r"|GC (found|undeleted) \d|(Running|Finished) (full|quick) maintenance|Advancing epoch markers"
    r"|Compacting an eligible |Attempting to compact |Cleaning up (unneeded|old) "
    r"|Not saving snapshot because no files have been changed|Connected to repository"
    r"|Upgrade of Kopia from |Visit https://github.com/kopia/)"
)
