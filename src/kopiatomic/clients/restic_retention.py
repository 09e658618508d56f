"""Which of a restic repository's backups are a job's, and forgetting those alone.

A backup bears the tag of its job, ``restomic:JOB``. restic by itself forgets by host and
paths: a job whose selection changes would then have a group for each of its selections,
in which nothing is ever old enough, and two jobs with the same paths would share one.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kopiatomic.clients.parsing import as_stored, ask, nanoseconds, parse_options, understood
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import FORGET, TAG, ByHand, Made, Past, Ready, Step
from kopiatomic.errors import Refusal
from kopiatomic.record import Record
from kopiatomic.system.command import chunks, quote

# The short forms of --keep-last and so on; its -H is not the host.
_SHORT_KEEP = ("-l", "-H", "-d", "-w", "-m", "-y")

_HOSTS = ("--host", "--hostname")
_GROUPS = ("-g", "--group-by")

# Its other options that take a word.
_FORGET_WORDS = (
    *_HOSTS, *_GROUPS, "--tag", "--path", "--max-unused", "--max-repack-size",
    "--repack-smaller-than", "--repack-cacheable-only-smaller-than",
)  # fmt: skip

# With these restic would remove everything after all.
_DANGEROUS = ("--unsafe-allow-remove-all",)

# What follows the job's tag in that of its volumes, each of which is a group of its own.
_OF_VOLUMES, _EACH_VOLUME = ":volume", "host,paths"

# How many backups a note names.
_FEW = 3

_KEEP_FORMS = (
    *(f"--keep-{each}" for each in ("last", "hourly", "daily", "weekly", "monthly", "yearly")),
    *(f"--keep-within{each}" for each in ("", "-hourly", "-daily", "-weekly", "-monthly")),
    "--keep-within-yearly", "--keep-tag",
)  # fmt: skip


# What restic forget is told


def options_of(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the flags of restic forget with their values."""
    return parse_options(words, {*_FORGET_WORDS, *_KEEP_FORMS, *_SHORT_KEEP})


def hosts_of(words: Sequence[str]) -> list[str]:
    """Return the hosts that flags of restic forget name; raises Refusal if one has no name.

    restic takes that for all machines, from 0.19 on.
    """
    hosts = [value or "" for name, value in options_of(words) if name in _HOSTS]
    if "" in hosts:
        raise Refusal(
            "--forget: --host '' could mean the backups of all machines; name those that are meant"
        )
    return list(dict.fromkeys(hosts))


def is_rehearsal(words: Sequence[str]) -> bool:
    """Say whether flags of restic forget let it only say what it would do."""
    return any(name in ("-n", "--dry-run") for name, _ in options_of(words))


def forget_words(
    words: Sequence[str], host: str | None, tag: str, prune: bool
) -> list[str]:
    """Return the words of ``restic forget`` about the backups of one job; raises Refusal.

    The tag is added to each --tag of the user's, of which restic takes a backup that has
    all the tags of any. One group for each host is one for a job, unless the user groups:
    so the backups of two machines, whose jobs may have the same name, do not replace each
    other. ``host`` is put before where the user names none; None if it is not known.
    """
    check_forget(words)
    named = hosts_of(words)
    if not named and host is None:
        raise Refusal(
            "--forget: the wrapper works out RESTIC_HOST while it runs, so the host is not "
            "known here; name it, as in --forget '--host NAME --keep-daily 7'"
        )
    ours: list[str] = [] if named else ["--host", str(host)]
    given = {name for name, _ in options_of(words)}
    if "--tag" not in given:
        ours += ["--tag", tag]
    if not given & set(_GROUPS):
        ours += ["--group-by", "host"]
    last = ["--prune"] if prune and "--prune" not in words else []
    return [*ours, *_with_tag(words, tag), *last]


def _tags(value: str) -> list[str]:
    return [each.strip() for each in value.split(",")]


def _with_tag(words: Sequence[str], tag: str) -> list[str]:
    """Return flags of restic forget with the tag added to each --tag; raises Refusal."""
    narrowed: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name != "--tag":
            narrowed.append(word)
            if word in (*_FORGET_WORDS, *_KEEP_FORMS, *_SHORT_KEEP):
                narrowed += [each for each in (next(rest, None),) if each is not None]
            continue
        tags = _tags(value if equals else next(rest, ""))
        if "" in tags:
            # restic would take all backups without a tag, whatever else is in the list.
            raise Refusal(
                "--forget: --tag '' means backups without a tag, but those of this job have one; "
                "leave it out"
            )
        narrowed += ["--tag", ",".join([*tags, tag])]
    return narrowed


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


# The last whole backup


def withheld(reader: Reader, words: Sequence[str], past: Past) -> str:
    """Say why nothing may be forgotten now; nothing if the last whole backup would stay.

    A policy counts backups, and not what they lack: enough of those that are incomplete push
    the last whole one out. ``words`` are those of ``restic forget``. Only where the newest
    backup is not whole, restic is asked what it would remove. Raises Interrupted.
    """
    made = [run for run in past.own if run.backups or run.whole]
    last = next((run for run in reversed(made) if run.whole), None)
    if last is None or last is made[-1] or is_rehearsal(words):
        return ""
    asked = [word for word in words if word != "--prune"]
    try:
        groups = ask(reader, list, (*asked, "--dry-run", "--no-lock", "--json"))
        with understood():
            going = [row for group in groups for row in group["remove"] or ()]
            names = [str(row.get(name) or "") for row in going for name in ("id", "original")]
    except ClientFailed as error:
        return f"whether it would remove the last whole backup could not be asked: {error}"
    if not any(name.startswith(last.whole) for name in names):
        return ""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.began))
    return (
        f"nothing is removed, because the last whole backup, {last.whole[0][:8]} of {when}, would "
        "go, and those made after it are incomplete; once the job has a whole backup again, old "
        "ones are removed as ever"
    )


# Backups from before there was a tag


class Earlier(Record):
    """Backups without the tag of any job: those that are this job's, and those that may be.

    ``doubtful`` have paths that another job of the same host backs up as well. ``bare`` are
    hosts with backups without a tag, none of whose is the job's.
    """

    ours: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()


def find_earlier(
    listed: Sequence[Mapping[str, object]], tag: str, hosts: Sequence[str], own: str, past: Past
) -> Earlier:
    """Return which of the listed backups without a tag are those of a job, for each host.

    They are of the host and of the paths of one of the job's runs, and older than the first
    that has the tag. ``own`` is the host under which this machine's backups are stored, of
    which alone the history tells. Raises what comes of a listing that has another form.
    """
    ours: list[str] = []
    doubtful: list[str] = []
    bare: list[str] = []
    for host in hosts:
        there = [_of(each) for each in listed if each["hostname"] == host]
        known = past if host == own else Past()
        found = _find_of_host(there, tag, known)
        ours += found.ours
        doubtful += found.doubtful
        tagless = any(not _jobs_of(each, tag) for each in there)
        if tagless and not (found.ours or any(tag in each.tags for each in there)):
            bare.append(host)
    return Earlier(tuple(ours), tuple(doubtful), tuple(bare))


def ready(
    reader: Reader, tag: str, words: Sequence[str], own: str, past: Past, by_hand: ByHand
) -> Ready:
    """Return the steps that give the job's backups from before the tag the tag as well.

    So they are forgotten with the others. What cannot be told apart is said in notes.
    ``words`` are the flags of restic forget. What does not answer is a doubt.
    """
    hosts = hosts_of(words) or [own]
    named = [word for host in hosts for word in ("--host", host)]
    try:
        listed = ask(reader, list, ("snapshots", "--no-lock", "--json", *named))
        with understood():
            earlier = find_earlier(listed, tag, hosts, own, past)
    except ClientFailed as error:
        message = f"backups from before the tag {tag} could not be looked for: {error}"
        return Ready((), doubts=((message, error.status),))
    rehearsal = is_rehearsal(words)
    base = (*reader.base, "tag", "--add", tag)
    steps = [
        Step(TAG, f"give {_backups(len(names))} the tag {tag}", (*base, *names))
        for names in (() if rehearsal else chunks(earlier.ours))
    ]
    if any(tag + _OF_VOLUMES in _tags_of(each) for each in listed):
        kept = [word for word in words if word != "--prune"]
        volumes = forget_words(kept, own, tag + _OF_VOLUMES, False)
        # The last one counts: grouped otherwise, one volume would replace another.
        volumes += ["--group-by", _EACH_VOLUME]
        steps.append(Step(FORGET, "forget of volumes", (*reader.base, "forget", *volumes)))
    return Ready(tuple(steps), tuple(_notes(earlier, tag, by_hand)))


def _tags_of(listed: Mapping[str, object]) -> list[object]:
    tags = listed.get("tags")
    return tags if isinstance(tags, list) else []


def _backups(number: int) -> str:
    return "1 earlier backup" if number == 1 else f"{number} earlier backups"


def _notes(earlier: Earlier, tag: str, by_hand: ByHand) -> Iterator[str]:
    if earlier.doubtful:
        first = " ".join(name[:8] for name in earlier.doubtful[:_FEW])
        more = " ..." if len(earlier.doubtful) > _FEW else ""
        yield (
            f"{_backups(len(earlier.doubtful))} without a tag may be of this job or of another "
            f"one with the same paths and are never forgotten; to give one the tag of this job: "
            f"{by_hand(f'tag --add {tag} {first}{more}')}"
        )
    for host in earlier.bare:
        yield (
            f"no backup of {host} is known to be of this job, so nothing was forgotten; if there "
            f"are any: {by_hand(f'tag --host {quote([host])} --path PATH --add {tag}')}"
        )


class _Backup(Record):
    """One backup as restic lists it; ``original`` is its name from before it got its tags."""

    name: str
    paths: frozenset[str]
    tags: frozenset[str]
    moment: float
    original: str | None


def _of(listed: Mapping[str, object]) -> _Backup:
    paths, tags = listed["paths"], listed.get("tags") or []
    moment = nanoseconds(listed["time"])
    if not isinstance(paths, list) or not isinstance(tags, list) or moment is None:
        raise ValueError("no backup")
    return _Backup(
        str(listed["id"]), frozenset(map(str, paths)), frozenset(map(str, tags)), moment / 1e9,
        None if listed.get("original") is None else str(listed["original"]),
    )  # fmt: skip


def _find_of_host(there: Sequence[_Backup], tag: str, past: Past) -> Earlier:
    theirs = {each for each in there if tag in each.tags}
    others = {each for each in there if _jobs_of(each, tag)} - theirs
    selections = {each.paths for each in theirs} | _selections(past.own)
    rivals = {each.paths for each in others} | _selections(past.others)
    # What somebody backs up by hand once there are tags is theirs.
    tagged = [each.moment for each in theirs if each.original is None]
    tagged += [each.began for each in past.own if any(tag in _tags(word) for word in each.command)]
    first = min(tagged, default=float("inf"))
    # Where nothing can be removed, a backup that was given a tag stays beside its copy.
    copied = {each.original for each in theirs}
    ours: list[str] = []
    doubtful: list[str] = []
    for each in there:
        if each in theirs or each in others or each.moment >= first or each.name in copied:
            continue
        if _made(each, past.own):
            ours.append(each.name)
        elif each.paths in selections and not _made(each, past.others):
            (doubtful if each.paths in rivals else ours).append(each.name)
    return Earlier(tuple(ours), tuple(doubtful))


def _jobs_of(backup: _Backup, tag: str) -> list[str]:
    """Return those of a backup's tags that are a job's, as ``tag`` is."""
    prefix = tag[: tag.index(":") + 1]
    return [each for each in backup.tags if each.startswith(prefix)]


def _selections(runs: Iterable[Made]) -> set[frozenset[str]]:
    return {frozenset(map(as_stored, run.paths)) for run in runs if run.paths}


def _made(backup: _Backup, runs: Iterable[Made]) -> bool:
    """Say whether one of the runs has told that it made a backup, which restic names shortly."""
    return any(backup.name.startswith(name) for run in runs for name in run.backups)
