"""What the program asks of a client, and what a client answers."""

from collections.abc import Iterable, Mapping, Sequence

from kopiatomic.record import Record
from kopiatomic.system.command import quote

# A clock that was set back a little does not make a new backup an old one; in seconds.
CLOCK_SLACK = 1.0

# Where the layouts of machines are in a repository; there is no such directory anywhere else.
LAYOUTS = "/kopiatomic/layout"

# The kinds of steps that upkeep consists of.
CHECK, FORGET, PRUNE, MAINTENANCE = "check", "forget", "prune", "maintenance"
UNLOCK, TAG = "unlock", "tag"

# Those of which the client says in words alone what they did.
TOLD_IN_WORDS = (FORGET, UNLOCK, TAG)


class Figures(Record):
    """What the client says it did, as numbers; None where it did not say.

    ``added`` is in bytes as they were before compression, where the client
    tells; ``files`` are with symbolic links for kopia, without for restic;
    ``snapshots`` are the names of the backups it made. ``unchanged``: it made none
    because nothing has changed since the last one, and said so. ``excluded``: by rules of
    its own or the user's it left out files or directories.
    """

    files: int | None = None
    new_or_changed: int | None = None
    directories_changed: int | None = None
    size: int | None = None
    added: int | None = None
    snapshots: tuple[str, ...] = ()
    unchanged: bool = False
    excluded: bool = False


class Needs(Record):
    """What the client needs of the view, as absolute paths; without symbolic links but ``places``.

    ``program`` must be there; ``repository``, if it is local, must be there and
    writable; ``live`` must be; ``temporary`` is the usual TMPDIR. ``writable`` are
    directories with what belongs to the user and the client may write as well as
    read: configuration, keys. They are there, and belong into the backup. ``scratch``
    is what the client writes for itself, cache and log: it need not be there yet, must
    be writable, and does not belong into the backup. ``places`` the client must find
    where they exist: whatever the job speaks of, each as it stands and without
    symbolic links. ``repositories`` are those of the ``live`` places, or right in them,
    that hold a repository. ``texts`` are the words in which it does.
    """

    program: str
    temporary: str = "/tmp"
    writable: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    repository: str | None = None
    scratch: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


def together(every: Sequence[Needs]) -> Needs:
    """Return the needs of the first with all that the others need beside."""

    def united(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for listed in lists for each in listed))

    return every[0]._replace(
        writable=united(each.writable for each in every),
        live=united(each.live for each in every),
        scratch=united(each.scratch for each in every),
        repositories=united(each.repositories for each in every),
        places=united(each.places for each in every),
        texts=united(each.texts for each in every),
    )


class Request(Record):
    """One backup, as a client is asked for it.

    ``paths`` are to be backed up but for what is in the directories ``skipped``;
    ``moment`` is the snapshot's as time(3) has it, None while it is not known;
    ``parent`` the earlier backup to continue, where it has to be named; ``captured``
    says whether we read the client's output. ``zone`` is TZ as the client has it. With a
    ``stream`` no paths are backed up, but what the client reads on its standard input, under
    this name, which is an absolute path. What is kept ``aside``, under this word, is no
    backup of the job's as far as retention is concerned.
    """

    paths: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    moment: float | None = None
    parent: str | None = None
    captured: bool = True
    zone: str | None = None
    stream: str | None = None
    aside: str = ""


class Missing(Record):
    """A path that is not in a backup, or is ``empty`` there though its snapshot is not.

    The client made a backup of ``removed``, which is the path or one above it, and the
    repository does not have that backup any more.
    """

    point: str
    empty: bool = False
    removed: str = ""


class Proof(Record):
    """Which mount points the repository says it has in the backups of a run.

    ``backups`` are the ids of those that were looked at: none if the client has made
    none, or the repository has none any more. ``stands_in`` is an earlier one that stands for
    this run because nothing has changed since; ``moment`` the time that the backup bears, as
    time(3) has it.
    """

    backups: tuple[str, ...]
    found: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    stands_in: str | None = None
    moment: float | None = None


def missing_in(held: Mapping[str, bool], points: Mapping[str, bool]) -> tuple[Missing, ...]:
    """Return the points that are not held, or without entries though they have some."""
    return tuple(
        Missing(point, point in held)
        for point, full in points.items()
        if point not in held or (full and not held[point])
    )


def compared(
    points: Mapping[str, bool],
    held: Mapping[str, bool],
    backups: Iterable[str],
    moments: Iterable[float | None],
    stands_in: str | None = None,
) -> Proof:
    """Return the proof that comes of the points ``held``, each with whether it has entries."""
    missing = missing_in(held, points)
    gone = {each.point for each in missing}
    return Proof(
        tuple(backups), tuple(each for each in points if each not in gone), missing, stands_in,
        max((each for each in moments if each is not None), default=None),
    )  # fmt: skip


class Streamed(Record):
    """What new backups have of a stream: their ids, and its size in bytes.

    Of several backups, in several repositories, it is the smallest size, and None where one of
    them has nothing of that name. There are no ``backups`` where the client has made none.
    """

    backups: tuple[str, ...] = ()
    size: int | None = None


class ByHand(Record):
    """How somebody calls a job's client for anything but a backup, as a shell takes it."""

    call: str
    env_file: str | None = None

    def __call__(self, words: str) -> str:
        """Return the command line with these words, for a message."""
        needs = f" (with the variables of {quote([self.env_file])})" if self.env_file else ""
        return f"{self.call} {words}{needs}"


class Wishes(Record):
    """Which steps of upkeep were asked for; ``verify`` is how much of the data, in percent."""

    verify: float | None = None
    maintenance: bool = False
    forget: tuple[str, ...] | None = None
    prune: bool = False


class Step(Record):
    """One call of the client in upkeep: what it is for, what people call it, the command line.

    ``also`` is what else the same call does.
    """

    kind: str  # CHECK and so on
    title: str
    argv: tuple[str, ...]
    also: tuple[str, ...] = ()


class Made(Record):
    """What the history tells of one run: its paths, and the backups it made of them.

    ``command`` are the words that the client was called with; ``meant`` are paths of earlier
    runs whose datasets this one could not capture though nobody left them out. ``ended`` is
    when it was over, as time(3) has it. ``streams`` are the names of what was streamed.
    ``whole`` are those of the backups that are of files, and lack nothing.
    """

    job: str
    began: float
    ended: float
    paths: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    meant: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


class Past(Record):
    """The runs of a job, oldest first, and those of the other jobs of the program."""

    own: tuple[Made, ...] = ()
    others: tuple[Made, ...] = ()


class Ready(Record):
    """The steps of upkeep, with those that the state of the repository asks for.

    ``notes`` are to be told in the report; ``doubts`` too, as problems, unless a step fails:
    what could not be asked, each with the client's exit status. ``withheld`` says why nothing
    may be forgotten now, if that is so.
    """

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[tuple[str, int], ...] = ()
    withheld: str = ""


class Source(Record):
    """The last backup of one source: its id, its paths, the moment it shows.

    ``root`` is what the client itself wants to know again of it; bytes in ``paths``
    that are not UTF-8 are parsing.UNKNOWN_BYTE.
    """

    backup: str
    title: str
    moment: float
    path: str = ""
    root: Mapping[str, object] | None = None
    paths: tuple[str, ...] = ()


class File(Record):
    """A file in a backup: as it was recorded, and the words that make the client print it.

    Times are in nanoseconds, None where the backup does not know; ``mode`` are the
    permissions as chmod(2) has them.
    """

    path: str
    size: int
    mtime: int | None
    fetch: tuple[str, ...]
    ctime: int | None = None
    inode: int | None = None
    owner: int | None = None
    group: int | None = None
    mode: int | None = None


class Tally:
    """What came of one source; ``too_large`` and ``unnamed`` files were not chosen.

    It must hold the mount points ``points``; of them ``absent`` are those that it does
    not, and in ``empty`` is nothing.
    """

    def __init__(self, source: Source, points: tuple[str, ...] = ()) -> None:
        self.source, self.points = source, points
        self.absent: list[str] = []
        self.empty: list[str] = []
        self.chosen = self.restored = self.identical = 0
        self.changed: list[str] = []
        self.too_large = self.unnamed = 0
        self.read = self.size = 0  # of a volume, in bytes
        self.blocks: tuple[int, int] | None = None  # of a volume: so many are the same, of so many
        self.problems: list[str] = []
