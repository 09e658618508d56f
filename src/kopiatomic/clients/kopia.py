"""All that is special to kopia."""

import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

from kopiatomic.clients.base import (
    CHECK,
    MAINTENANCE,
    Client,
    Figures,
    File,
    Request,
    Source,
    Step,
    Tally,
    Wishes,
)
from kopiatomic.clients.parsing import (
    count,
    has_option,
    json_objects,
    json_value,
    member,
    nanoseconds,
    option_value,
    total,
    understood,
)
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import decode, quote

# The line with which kopia closes each source: " * 0 hashing, 1 hashed (2 B), ...".
_DONE = re.compile(r" \* \d+ hashing, ([0-9]{1,18}) hashed ")

# How kopia names the one who may do maintenance.
_OWNER = re.compile(r"must be run by designated user: (\S{1,300})")


class Kopia(Client):
    """kopia(1)."""

    name = "kopia"
    subcommand = ("snapshot", "create")
    repository_words = (
        "--config-file", "-p", "--password", "--log-dir", "--log-file", "--log-level",
        "--file-log-level",
    )  # fmt: skip
    repository_switches = (
        "--progress", "--no-progress", "--use-keyring", "--no-use-keyring",
        "--disable-file-logging", "--disable-content-log",
    )  # fmt: skip

    # A backup

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return the moment, and what makes kopia tell its results."""
        given = [*job.command, *job.options]
        words = []
        if not has_option(given, "--start-time"):
            words = ["--start-time", _when(request.moment)]
        if request.captured and not has_option(given, "--json", "--no-json", "--no-progress"):
            # Its last line of progress says how many files it read, which its JSON does not.
            words += ["--json", "--progress"]
        return words

    def speaks_to_us_alone(self, words: Sequence[str]) -> bool:
        """Say whether kopia prints JSON, which is not shown."""
        return "--json" in words

    def directories(self, environment: Mapping[str, str]) -> list[str]:
        """Return where kopia's cache, configuration and log are, as far as variables say."""
        config = environment.get("KOPIA_CONFIG_PATH", "")
        return [
            environment.get("KOPIA_CACHE_DIRECTORY", ""),
            config.rpartition("/")[0],
            environment.get("KOPIA_LOG_DIR", ""),
        ]

    def repository(self, job: Job, environment: Mapping[str, str]) -> str | None:
        """Return the directory in kopia's own configuration file, if that is a local one."""
        words = [*job.command, *job.options]
        config = option_value(words, "--config-file") or environment.get("KOPIA_CONFIG_PATH")
        if config is None and self.is_plain(job):
            home = environment.get("HOME", "/")
            base = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
            config = f"{base}/kopia/repository.config"
        if config is None:
            return None
        try:
            with open(config, encoding="utf-8") as file:
                storage = json.load(file)["storage"]
            return str(storage["config"]["path"]) if storage["type"] == "filesystem" else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read the JSON on standard output and the last lines of progress."""
        manifests = [each for each in json_objects(decode(output)) if "rootEntry" in each]
        sums = [member(each, "rootEntry", "summ") for each in manifests]
        done = _DONE.findall(decode(messages))
        # What it calls hashed are files and symbolic links; what it uploads it tells too early.
        return Figures(
            files=total(sums, "files") + total(sums, "symlinks") if sums else None,
            size=total(sums, "size") if sums else None,
            new_or_changed=sum(map(int, done)) if done else None,
            snapshots=tuple(str(each["id"]) for each in manifests if "id" in each),
        )

    def about_live(self, live: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Give the commands that make kopia pass over what is not frozen."""
        policies = [["kopia", "policy", "set", *_ignores(live, path), path] for path in paths]
        return [
            "kopia cannot be told to pass over what is not frozen; if you do not want it in the "
            f"backup: {quote(words)}"
            for words in policies
            if len(words) > 4
        ]

    # Upkeep

    def steps(self, job: Job, wishes: Wishes, environment: Mapping[str, str]) -> list[Step]:
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

    def step_hint(self, job: Job, kind: str, status: int, text: str) -> str | None:
        """Explain who may do maintenance."""
        owner = _OWNER.search(text)
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

    def sources(self, reader: Reader, job: Job, environment: Mapping[str, str]) -> list[Source]:
        """Return the last complete backup of each source of this user and host."""
        newest: dict[str, Source] = {}
        with understood():
            for each in json_value(reader.whole("snapshot", "list", "--json"), list):
                if each.get("incomplete"):
                    continue
                path = str(each["source"]["path"])
                moment = (nanoseconds(each["startTime"]) or 0) / 1e9
                if path not in newest or newest[path].moment < moment:
                    root = each["rootEntry"]
                    newest[path] = Source(str(each["id"]), path, moment, path, root)
        return [newest[path] for path in sorted(newest)]

    def files(
        self, reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
    ) -> list[File]:
        """Return files of a backup, each with the same chance.

        Every directory entry says how many files there are below it, so the number
        of a file leads to it; only the directories on the way are read. A file is
        asked for by its object, so its name does not matter.
        """
        with understood():
            tree = _Tree(reader, tally.source)
            chosen: list[File] = []
            # Some of them may be too large.
            for number in rng.sample(range(tree.total), min(tree.total, 4 * wanted + 20)):
                if len(chosen) == wanted:
                    break
                entry, path = tree.file(number)
                size = count(entry.get("size"))
                if size > size_limit:
                    tally.too_large += 1
                    continue
                fetch = ("show", str(entry["obj"]))
                chosen.append(File(path, size, nanoseconds(entry.get("mtime")), fetch))
        return chosen


class _Tree:
    """The files of a backup by their number, in the order in which kopia lists them."""

    def __init__(self, reader: Reader, source: Source) -> None:
        self.root = source.root or {}
        self.path = source.path
        self.total = _files_below(self.root)

        @lru_cache(maxsize=32)
        def entries(name: str) -> list[dict[str, object]]:
            listing = json_value(reader.whole("show", name), dict)["entries"]
            return [each for each in listing or () if isinstance(each, dict)]

        self.entries = entries

    def file(self, number: int) -> tuple[Mapping[str, object], str]:
        """Return the entry of a file and its path; raises ClientFailed if it is not there."""
        here, at, left = self.root, self.path, number
        while here.get("type") == "d":
            for entry in self.entries(str(here["obj"])):
                files = _files_below(entry)
                if left < files:
                    here, at = entry, f"{at.rstrip('/')}/{entry['name']}"
                    break
                left -= files
            else:
                raise ClientFailed(1, f"the directory {at} holds fewer files than was noted")
        return here, at


def _files_below(entry: Mapping[str, object]) -> int:
    if entry.get("type") == "f":
        return 1
    summary = entry.get("summ")
    files = summary.get("files") if isinstance(summary, dict) else 0
    return files if isinstance(files, int) else 0


def _when(seconds: float | None) -> str:
    """Return a moment in universal time, which kopia takes together with the zone."""
    if seconds is None:
        return "TIME-OF-SNAPSHOT"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _ignores(live: Sequence[str], path: str) -> list[str]:
    above = path.rstrip("/") + "/"
    return [f"--add-ignore=/{each[len(above) :]}/*" for each in live if each.startswith(above)]
