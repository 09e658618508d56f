"""All that is special to restic."""

import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence

from kopiatomic.clients.base import (
    CHECK,
    FORGET,
    PRUNE,
    ByHand,
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
    NOT_UTF8,
    count,
    has_option,
    json_objects,
    json_value,
    nanoseconds,
    option_value,
    understood,
)
from kopiatomic.clients.reader import Reader
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import CommandFailed, Door, decode
from kopiatomic.system.machine import lies_in

# Without it a directory with files of several links looks changed in every
# run, and so do all files: each nullfs mount has a device number of its own.
FEATURE = "device-id-for-hardlinks"

# Its exit statuses, beside 1: restic's manual, "Exit codes".
INCOMPLETE, NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 3, 10, 11, 12

# Options with which the user decides about the parent.
_DECIDE_PARENT = ("--parent", "--force", "-f", "--group-by", "-g")

# How long a repository may take to list its backups, in seconds.
LISTING_LIMIT = 600.0


class Restic(Client):
    """restic(1)."""

    name = "restic"
    subcommand = ("backup",)
    repository_words = (
        "-r", "--repo", "--repository-file", "-p", "--password-file", "--password-command",
        "--key-hint", "--cacert", "--tls-client-cert", "--cache-dir", "-o", "--option",
        "--limit-download", "--limit-upload", "--retry-lock", "--stuck-request-timeout",
        "--http-user-agent", "--compression", "--pack-size",
    )  # fmt: skip
    repository_switches = (
        "--insecure-tls", "--insecure-no-password", "--no-cache", "--cleanup-cache",
    )  # fmt: skip

    # A backup

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return the moment, the excludes that keep out what is not frozen, and the parent."""
        words = []
        if not has_option([*job.command, *job.options], "--time"):
            words = ["--time", _when(request.moment)]
        for place in request.skipped:
            words += ["--exclude", f"{_literal(place)}/*"]
        return words if request.parent is None else [*words, "--parent", request.parent]

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Add the feature to what the user has set."""
        features = environment.get("RESTIC_FEATURES", "")
        if FEATURE in features:
            return {}
        return {"RESTIC_FEATURES": ",".join(filter(None, (features, f"{FEATURE}=true")))}

    def directories(self, environment: Mapping[str, str]) -> list[str]:
        """Return where restic's cache is, if a variable says so."""
        return [environment.get("RESTIC_CACHE_DIR", "")]

    def repository(self, job: Job, environment: Mapping[str, str]) -> str | None:
        """Return the directory that an option or variable names, if that is a local one."""
        named = option_value([*job.command, *job.options], "--repo", "-r")
        if named is None and self.is_plain(job):
            named = environment.get("RESTIC_REPOSITORY")
        if named is None:
            return None
        path = named.removeprefix("local:")
        return path if path.startswith("/") else None

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read the summary, which is text or, with --json, a line of JSON."""
        text = decode(output)
        objects = json_objects(text)
        summaries = [each for each in objects if each.get("message_type") == "summary"]
        return _figures_in_json(summaries[-1]) if summaries else _figures_in_text(text)

    # What its words mean

    def is_incomplete(self, status: int) -> bool:
        """Say whether restic made a backup without the files that it could not read."""
        return status == INCOMPLETE

    def locked(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Explain restic's locks."""
        by_hand = by_hand or ByHand(self.name)
        if status != INCOMPLETE and _BAD_LOCK.search(text):
            return (
                "a lock in the repository cannot be read; once no restic uses the repository, on "
                f"any machine: {by_hand('unlock --remove-all')}"
            )
        return _explain_lock(text, by_hand("unlock")) if status == LOCKED else None

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
            NO_REPOSITORY: "the repository is not there; if it is to be made: "
            f"{by_hand('init')}",
            WRONG_PASSWORD: "the repository's password is wrong",
        }.get(status) or super().hint(status, text, by_hand)

    def hint_between(self, job: Job, status: int, text: str = "") -> str | None:
        """Explain an exit status, but not the one about files that a backup could not read."""
        known = None if status == INCOMPLETE else self.hint(status, "")
        return self.locked(status, text, self.by_hand(job)) or known

    # The parent

    def parent(
        self,
        door: Door,
        job: Job,
        paths: Sequence[str],
        last_paths: Sequence[str] | None,
        environment: Mapping[str, str],
    ) -> str | None:
        """Return the snapshot to name as parent, or None to leave it to restic.

        restic looks for an earlier snapshot that holds all of today's paths. When a
        dataset was added there is none, and it would read every file again; then we
        name the snapshot that has most of the paths. While the paths stay the same
        nothing is asked. A repository that does not answer is the backup's to report.
        """
        if job.plain or has_option([*job.command, *job.options], *_DECIDE_PARENT):
            return None
        if last_paths is not None and set(paths) <= set(last_paths):
            return None
        try:
            argv = [*self.base_command(job), "--no-lock", "snapshots", "--json"]
            answer = door.run(argv, environment=environment, time_limit=LISTING_LIMIT).stdout
            return choose_parent(json.loads(answer), paths, host_of(job, environment))
        except (Refusal, CommandFailed, ValueError, KeyError, TypeError):
            return None

    # Upkeep

    def steps(self, job: Job, wishes: Wishes, environment: Mapping[str, str]) -> list[Step]:
        """Return the check, and forget and prune, as far as they were asked for."""
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
            words = _forget_words(job, wishes, environment)
            steps.append(Step(FORGET, title, (*base, "forget", *words)))
        elif wishes.prune:
            steps.append(Step(PRUNE, "prune", (*base, "prune")))
        if not steps:
            raise Refusal("--upkeep: say what is to be done: --verify, --forget or --prune")
        return steps

    def step_problem(self, kind: str, text: str) -> str | None:
        """Notice where restic goes on, and may end well, but removed nothing."""
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

    def sources(self, reader: Reader, job: Job, environment: Mapping[str, str]) -> list[Source]:
        """Return the last snapshot of this job's host for each of its groups of paths."""
        host = host_of(job, environment)
        with understood():
            answer = reader.whole("snapshots", "--json", "--latest", "1", "--host", host)
            return [
                Source(
                    backup=str(each["id"]),
                    title=", ".join(map(str, each["paths"])),
                    moment=(nanoseconds(each["time"]) or 0) / 1e9,
                )
                for each in json_value(answer, list)
            ]

    def files(
        self, reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
    ) -> list[File]:
        """Return files of a snapshot, each with the same chance; memory is for those only.

        ``restic dump`` is asked for a file by its path, which takes no pattern; a
        path that is not UTF-8 it does not tell us in a form to ask with.
        """
        chosen: list[File] = []
        seen = 0
        with understood():
            for line in reader.lines("ls", "--json", tally.source.backup):
                file = _eligible(line, tally, size_limit)
                if file is None:
                    continue
                seen += 1
                slot = len(chosen) if len(chosen) < wanted else rng.randrange(seen)
                if slot < wanted:
                    chosen[slot : slot + 1] = [file]
        return chosen


# A backup


def _when(seconds: float | None) -> str:
    """Return a moment in local time, which is restic's."""
    if seconds is None:
        return "TIME-OF-SNAPSHOT"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _literal(path: str) -> str:
    """Return a path as an exclude pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path.rstrip("/"))


def host_of(job: Job, environment: Mapping[str, str]) -> str:
    """Return the host name under which restic stores this job's backups."""
    given = option_value([*job.command, *job.options], "--host", "-H")
    return given or environment.get("RESTIC_HOST") or os.uname().nodename


def choose_parent(
    snapshots: Sequence[Mapping[str, object]], paths: Sequence[str], host: str
) -> str | None:
    """Return the id of the newest of this host's snapshots that share most paths.

    None if no snapshot shares any, or if one holds them all: that one restic
    finds by itself.
    """
    best: tuple[int, str, str] | None = None
    for snapshot in snapshots:
        theirs = snapshot["paths"]
        if snapshot.get("hostname") != host or not isinstance(theirs, list):
            continue
        if set(paths) <= set(theirs):
            return None
        shared = sum(any(_overlap(path, other) for other in theirs) for path in paths)
        candidate = (shared, str(snapshot["time"]), str(snapshot["id"]))
        if shared and (best is None or candidate > best):
            best = candidate
    return best[2] if best else None


def _overlap(path: str, other: str) -> bool:
    return lies_in(path, other) or lies_in(other, path)


# Figures

# A count, and an amount, as restic writes them; what else it could be is no number.
_N = "([0-9]{1,18})"
_DECIMAL = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)"

_UNITS = {
    "B": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGTP", 1)},
}


def _figures_in_json(summary: Mapping[str, object]) -> Figures:
    def number(name: str) -> int:
        return count(summary.get(name))

    return Figures(
        files=number("total_files_processed"),
        new_or_changed=number("files_new") + number("files_changed"),
        directories_changed=number("dirs_new") + number("dirs_changed"),
        size=number("total_bytes_processed"),
        added=number("data_added"),
        snapshots=(str(summary["snapshot_id"]),) if summary.get("snapshot_id") else (),
    )


def _figures_in_text(text: str) -> Figures:
    """Read the lines with which restic closes a backup."""
    files = re.search(rf"^Files:\s+{_N} new,\s+{_N} changed,\s+{_N} unmodified", text, re.M)
    dirs = re.search(rf"^Dirs:\s+{_N} new,\s+{_N} changed", text, re.M)
    added = re.search(rf"^Added to the repo\w*: {_DECIMAL} (\w+)", text, re.M)
    total = re.search(rf"^processed \d+ files?, {_DECIMAL} (\w+) in", text, re.M)
    saved = re.findall(r"^snapshot ([0-9a-f]{8,64}) saved", text, re.M)
    counts = [int(each) for each in files.groups()] if files else []
    return Figures(
        files=sum(counts) if counts else None,
        new_or_changed=counts[0] + counts[1] if counts else None,
        directories_changed=int(dirs[1]) + int(dirs[2]) if dirs else None,
        size=_bytes(total[1], total[2]) if total else None,
        added=_bytes(added[1], added[2]) if added else None,
        snapshots=tuple(saved),
    )


def _bytes(number: str, unit: str) -> int | None:
    return round(float(number) * _UNITS[unit]) if unit in _UNITS else None


# Locks

# Not just anywhere: a file that cannot be read may have that name.
_BAD_LOCK = re.compile(
    r'^(?:Fatal: |unable to create lock|\{"message_type":"exit_error").*invalid lock file', re.M
)

# How restic names the owner of a lock, as text or, with --json, within a string.
_LOCK = re.compile(
    r"already locked (?:exclusively )?by (PID [0-9]{1,9} on (\S{1,255}) by \S.{0,99}?)"
    r"(?:\\n|\n)lock was created at [^(\n]{0,40}"
    r"\(((?:([0-9]{1,9})h)?(?:([0-9]{1,2})m(?!s))?[^)\n]{0,30}) ago\)"
)

# After so many minutes restic takes any lock for stale, as a living one renews its lock. Before,
# it does so only on the machine that made the lock, once the process has gone.
_STALE = 30


def _explain_lock(text: str, unlock: str) -> str:
    """Say who holds the lock, as far as restic told it, and how to get rid of it."""
    found = _LOCK.search(text)
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


# Retention

# The short forms of --keep-last and so on; its -H is not the host.
_SHORT_KEEP = ("-l", "-H", "-d", "-w", "-m", "-y")

# Its other options that take a word.
_FORGET_WORDS = (
    "--host", "--tag", "--path", "-g", "--group-by", "--max-unused", "--max-repack-size",
    "--repack-smaller-than",
)  # fmt: skip

# With these restic would remove everything after all.
_DANGEROUS = ("--unsafe-allow-remove-all",)


def _forget_words(job: Job, wishes: Wishes, environment: Mapping[str, str]) -> list[str]:
    words = list(wishes.forget or ())
    check_forget(words)
    if not has_option(words, "--host"):
        words = ["--host", host_of(job, environment), *words]
    if wishes.prune and "--prune" not in words:
        words.append("--prune")
    return words


def check_forget(words: Sequence[str]) -> None:
    """Refuse flags of restic forget with which it would not keep to a policy.

    Without --keep flags there is nothing that it has to keep; with a snapshot's
    name it forgets that one, whatever the policy says. Raises Refusal.
    """
    for word in words:
        if word.split("=", 1)[0] in _DANGEROUS:
            raise Refusal(f"--forget: {word} could leave no backup at all; leave it out")
    takes_word = False
    keeps = False
    for word in words:
        if takes_word:
            takes_word = False
        elif not word.startswith("-"):
            raise Refusal(
                f"--forget: '{word}' belongs to no option; give flags of restic forget only, "
                "as in --forget '--keep-daily 7 --keep-weekly 5'"
            )
        else:
            keep = word.startswith("--keep-") or word[:2] in _SHORT_KEEP
            keeps = keeps or keep
            bare = word in _SHORT_KEEP or (word.startswith("--keep-") and "=" not in word)
            takes_word = bare or word in _FORGET_WORDS
    if not keeps:
        raise Refusal(
            "--forget needs to know what to keep: without a --keep flag every backup could go; "
            "for example --forget '--keep-daily 7 --keep-weekly 5'"
        )


# The drill


def _eligible(line: bytes, tally: Tally, size_limit: int) -> File | None:
    """Return the file that a line of ``restic ls --json`` is about, if it can be restored."""
    if b'"file"' not in line:
        return None
    node = json_value(line, dict)
    if node.get("type") != "file":
        return None
    size = int(node.get("size") or 0)
    if size > size_limit:
        tally.too_large += 1
        return None
    if NOT_UTF8.search(line):
        tally.unnamed += 1
        return None
    path, inode = str(node["path"]), node.get("inode")
    return File(
        path, size, nanoseconds(node.get("mtime")), ("dump", tally.source.backup, path),
        ctime=nanoseconds(node.get("ctime")), inode=inode if isinstance(inode, int) else None,
    )  # fmt: skip
