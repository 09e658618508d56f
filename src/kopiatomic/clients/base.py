"""kopia and restic: their arguments, environment and results.

For each client this knows how to say: these paths, at this moment, in a view.
"""

import json
import os
import pwd
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kopiatomic.backup.plan import Needs, Plan
from kopiatomic.job import Job
from kopiatomic.system.command import PATH, decode, quote

# Of the caller's environment the client gets all but what could make a
# program that runs as root load something else.
_NOT_INHERITED = re.compile(
    r"^(LD_|PYTHON|PERL|RUBY|BASH_FUNC_)"
    r"|^(PATH|IFS|ENV|BASH_ENV|BASHOPTS|SHELLOPTS|ZDOTDIR|FPATH|CDPATH|PS4)$"
)


@dataclass(frozen=True)
class Figures:
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


@dataclass(frozen=True)
class ByHand:
    """How somebody calls a job's client for anything but a backup, as a shell takes it."""

    call: str
    env_file: str | None = None

    def __call__(self, words: str) -> str:
        """Return the command line with these words, for a message."""
        needs = f" (with the variables of {quote([self.env_file])})" if self.env_file else ""
        return f"{self.call} {words}{needs}"


@dataclass(frozen=True)
class Backend:
    """What both clients have in common."""

    name: str
    subcommand: tuple[str, ...]
    time_option: str

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

    def moment(self, seconds: float) -> str:
        """Return a moment in the form in which ``time_option`` takes it."""
        raise NotImplementedError

    def arguments(self, job: Job, plan: Plan, captured: bool) -> list[str]:
        """Return what else the client is told about this plan."""
        raise NotImplementedError

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what the client's environment needs beside the usual."""
        return {}

    def repository(self, job: Job, environment: Mapping[str, str], home: str) -> str | None:
        """Return the directory of a local repository, where it can be told; or None."""
        raise NotImplementedError

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read what the client printed."""
        raise NotImplementedError

    def locked(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Say who has locked the repository and what to do about it, if that is the matter."""
        return None

    def hint(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Say what a failure means and what to do about it, where that is known.

        ``by_hand`` is how this job's client is called, where not just by its name.
        """
        if "read-only file system" in text.lower() or "EROFS" in text:
            return (
                "it tried to write where the view is frozen; name that directory with --live, "
                "or keep repository and cache outside the datasets that are backed up"
            )
        return None


@dataclass(frozen=True)
class Kopia(Backend):
    """kopia(1)."""

    name: str = "kopia"
    subcommand: tuple[str, ...] = ("snapshot", "create")
    time_option: str = "--start-time"

    def moment(self, seconds: float) -> str:
        """In universal time, which kopia takes together with the zone."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))

    def arguments(self, job: Job, plan: Plan, captured: bool) -> list[str]:
        """Return what makes kopia tell its results."""
        words = [*job.command, *job.options]
        if not captured or has_option(words, "--json", "--no-json", "--no-progress"):
            return []
        # Its last line of progress says how many files it read, which its JSON does not.
        return ["--json", "--progress"]

    def repository(self, job: Job, environment: Mapping[str, str], home: str) -> str | None:
        """Return the directory in kopia's own configuration file, if that is a local one."""
        words = [*job.command, *job.options]
        config = option_value(words, "--config-file") or environment.get("KOPIA_CONFIG_PATH")
        if config is None and _is_plain(job, self.name):
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
        manifests = [each for each in _json_values(decode(output)) if "rootEntry" in each]
        sums = [_member(each, "rootEntry", "summ") for each in manifests]
        done = _KOPIA_DONE.findall(decode(messages))
        # What it calls hashed are files and symbolic links; what it uploads it tells too early.
        return Figures(
            files=_total(sums, "files") + _total(sums, "symlinks") if sums else None,
            size=_total(sums, "size") if sums else None,
            new_or_changed=sum(map(int, done)) if done else None,
            snapshots=tuple(str(each["id"]) for each in manifests if "id" in each),
        )


@dataclass(frozen=True)
class Restic(Backend):
    """restic(1)."""

    name: str = "restic"
    subcommand: tuple[str, ...] = ("backup",)
    time_option: str = "--time"
    # Without it a directory with files of several links looks changed in every
    # run, and so do all files: each nullfs mount has a device number of its own.
    feature: str = field(default="device-id-for-hardlinks")

    def moment(self, seconds: float) -> str:
        """In local time, which is restic's."""
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))

    def arguments(self, job: Job, plan: Plan, captured: bool) -> list[str]:
        """Return the excludes that keep out what is not frozen."""
        patterns = (f"{_restic_literal(place)}/*" for place in plan.thawed)
        return [word for pattern in patterns for word in ("--exclude", pattern)]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Add the feature to what the user has set."""
        features = inherited.get("RESTIC_FEATURES", "")
        if self.feature in features:
            return {}
        return {"RESTIC_FEATURES": ",".join(filter(None, (features, f"{self.feature}=true")))}

    def repository(self, job: Job, environment: Mapping[str, str], home: str) -> str | None:
        """Return the directory that an option or variable names, if that is a local one."""
        words = [*job.command, *job.options]
        named = option_value(words, "--repo", "-r")
        if named is None and _is_plain(job, self.name):
            named = environment.get("RESTIC_REPOSITORY")
        if named is None:
            return None
        path = named.removeprefix("local:")
        return path if path.startswith("/") else None

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read the summary, which is text or, with --json, a line of JSON."""
        text = decode(output)
        summaries = [
            each for each in _json_values(text) if each.get("message_type") == "summary"
        ]
        return _restic_json(summaries[-1]) if summaries else _restic_text(text)

    def locked(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Explain restic's locks."""
        by_hand = by_hand or ByHand(self.name)
        if status != 3 and _RESTIC_BAD_LOCK.search(text):
            return (
                "a lock in the repository cannot be read; once no restic uses the repository, on "
                f"any machine: {by_hand('unlock --remove-all')}"
            )
        return _restic_locked(text, by_hand("unlock")) if status == 11 else None

    def hint(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Explain restic's exit statuses."""
        if f'unknown feature flag "{self.feature}"' in text:
            return (
                f"this restic no longer knows {self.feature}; "
                "please report it, and use --plain until it is mended"
            )
        by_hand = by_hand or ByHand(self.name)
        told = self.locked(status, text, by_hand)
        if told:
            return told
        return {
            3: "some files could not be read, the backup is incomplete; restic named them above",
            10: f"the repository is not there; if it is to be made: {by_hand('init')}",
            12: "the repository's password is wrong",
        }.get(status) or super().hint(status, text, by_hand)


# Not just anywhere: a file that cannot be read may have that name.
_RESTIC_BAD_LOCK = re.compile(
    r'^(?:Fatal: |unable to create lock|\{"message_type":"exit_error").*invalid lock file', re.M
)

# How restic names the owner of a lock, as text or, with --json, within a string.
_RESTIC_LOCK = re.compile(
    r"already locked (?:exclusively )?by (PID [0-9]{1,9} on (\S{1,255}) by \S.{0,99}?)"
    r"(?:\\n|\n)lock was created at [^(\n]{0,40}"
    r"\(((?:([0-9]{1,9})h)?(?:([0-9]{1,2})m(?!s))?[^)\n]{0,30}) ago\)"
)

# After so many minutes restic takes any lock for stale, as a living one renews its lock. Before,
# it does so only on the machine that made the lock, once the process has gone.
_STALE = 30


def _restic_locked(text: str, unlock: str) -> str:
    """Say who holds the lock, as far as restic told it, and how to get rid of it."""
    found = _RESTIC_LOCK.search(text)
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


def backend_of(program: str) -> Backend:
    """Return the client that ``kopiatomic`` or ``restomic`` drives."""
    return Kopia() if program == "kopiatomic" else Restic()


def client_command(
    job: Job, plan: Plan, seconds: float | None, parent: str | None, captured: bool
) -> list[str]:
    """Return the client's command line: what the user gave, our part, the live paths.

    ``seconds`` is the snapshot's moment as time(3) has it, None while it is not
    known; ``captured`` says whether we read the client's output.
    """
    backend = backend_of(job.program)
    words = backend.command(job)
    if job.plain:
        return [*words, *job.options, *plan.paths]
    given = [*job.command, *job.options]
    ours = backend.arguments(job, plan, captured)
    if not has_option(given, backend.time_option):
        when = "TIME-OF-SNAPSHOT" if seconds is None else backend.moment(seconds)
        ours = [backend.time_option, when, *ours]
    if parent is not None:
        ours += ["--parent", parent]
    return [*words, *ours, *job.options, *plan.paths]


def client_environment(
    job: Job, inherited: Mapping[str, str], temporary: str | None
) -> dict[str, str]:
    """Return the client's environment: the caller's, less what endangers root, and ours.

    HOME and its like are not taken over where they are another user's directory,
    as after ``su -m``. A variable of the env file wins over the caller's of that name.
    """
    base = {name: value for name, value in inherited.items() if not _NOT_INHERITED.search(name)}
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        if _is_anothers(base.get(name, "")):
            del base[name]
    base |= {"PATH": PATH, "HOME": base.get("HOME") or _home()}
    base |= job.environment
    if not job.plain:
        base |= backend_of(job.program).environment(base)
    if temporary is not None:
        base["TMPDIR"] = temporary
    return base


def _is_anothers(directory: str) -> bool:
    """Say whether a directory is there and is another user's, who can put things into it."""
    try:
        return os.stat(directory).st_uid not in (0, os.geteuid())
    except (OSError, ValueError):
        return False


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def needs_of(job: Job, program: str, environment: Mapping[str, str]) -> Needs:
    """Return what the client needs of a view; looks at the live file system only.

    ``program`` is the path of the client or wrapper.
    """
    home = environment.get("HOME", "/")
    writable = [
        *(environment.get(name, "") for name in ("RESTIC_CACHE_DIR", "KOPIA_CACHE_DIRECTORY")),
        environment.get("XDG_CACHE_HOME") or f"{home}/.cache",
        environment.get("XDG_CONFIG_HOME") or f"{home}/.config",
        os.path.dirname(environment.get("KOPIA_CONFIG_PATH", "")),
        environment.get("KOPIA_LOG_DIR", ""),
    ]
    repository = backend_of(job.program).repository(job, environment, home)
    return Needs(
        program=os.path.realpath(program),
        temporary=os.path.realpath(environment.get("TMPDIR") or "/tmp"),
        writable=tuple(
            dict.fromkeys(os.path.realpath(path) for path in writable if os.path.isdir(path))
        ),
        live=job.live,
        repository=os.path.realpath(repository) if repository else None,
    )


def _is_plain(job: Job, name: str) -> bool:
    """Say whether the client is called by itself and not through a wrapper."""
    return not job.command or os.path.basename(job.command[0]) == name


def has_option(words: Sequence[str], *options: str) -> bool:
    """Say whether one of the long ``options`` is among the words."""
    return any(word.split("=", 1)[0] in options for word in words)


def option_value(words: Sequence[str], *options: str) -> str | None:
    """Return what the last of ``options`` is set to, or None if it is not there."""
    value = None
    for index, word in enumerate(words):
        name, equals, inline = word.partition("=")
        if name in options:
            following = words[index + 1] if index + 1 < len(words) else None
            value = inline if equals else following
    return value


def _restic_literal(path: str) -> str:
    """Return a path as a restic exclude pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", path.rstrip("/"))


def _json_values(text: str) -> list[dict[str, object]]:
    """Return the JSON objects in a text that may hold other lines as well."""
    decoder = json.JSONDecoder(strict=False)
    values, end = [], 0
    for match in re.finditer(r"^\{", text, re.M):
        if match.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        values.append(value)
    return values


# The line with which kopia closes each source: " * 0 hashing, 1 hashed (2 B), ...".
_KOPIA_DONE = re.compile(r" \* \d+ hashing, ([0-9]{1,18}) hashed ")

# A count, and an amount, as restic writes them; what else it could be is no number.
_N = "([0-9]{1,18})"
_DECIMAL = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)"


def _member(data: Mapping[str, object], *names: str) -> object:
    value: object = data
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _total(sums: Sequence[object], name: str) -> int:
    return sum(_count(_member(each, name)) for each in sums if isinstance(each, Mapping))


def _count(value: object) -> int:
    """Return a number that a client printed, 0 if it is none that can be true."""
    number = value if isinstance(value, int) else 0
    return number if 0 <= number < 2**63 else 0


def _restic_json(summary: Mapping[str, object]) -> Figures:
    def number(name: str) -> int:
        return _count(summary.get(name))

    return Figures(
        files=number("total_files_processed"),
        new_or_changed=number("files_new") + number("files_changed"),
        directories_changed=number("dirs_new") + number("dirs_changed"),
        size=number("total_bytes_processed"),
        added=number("data_added"),
        snapshots=(str(summary["snapshot_id"]),) if summary.get("snapshot_id") else (),
    )


_UNITS = {
    "B": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGTP", 1)},
}


def _restic_text(text: str) -> Figures:
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
