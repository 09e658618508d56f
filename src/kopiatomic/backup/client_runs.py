"""The client runs of one backup: what each is asked for, and what it came to.

All of them are of the same moment, one after the other in the same view.
"""

from collections.abc import Callable

from kopiatomic.client_rows import FILES, LAYOUT, VOLUME
from kopiatomic.clients.records import Figures, Request, Streamed
from kopiatomic.record import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from kopiatomic.system.fingerprint import Fingerprint

__all__ = ["FILES", "LAYOUT", "VOLUME", "Called", "ClientRun", "Try"]


class ClientRun(Record):
    """One call of the client that a plan asks for.

    Its ``kind`` is FILES, which are in ``paths``, or VOLUME, that ``of`` names, or LAYOUT.
    The last two are read from the file or device ``source``, which lies outside of the view,
    and are kept under the name ``stream``. ``repository`` is the number of the env file that
    says which repository the client writes to; of several, a local one is in ``directory``.
    It is not made where there is an ``obstacle``.
    """

    kind: str = FILES
    of: str = ""
    repository: int = 0
    paths: tuple[str, ...] = ()
    stream: str | None = None
    source: str | None = None
    directory: str | None = None
    obstacle: str | None = None

    @property
    def aside(self) -> str:
        """The word under which its backup is kept apart from those of the files, if it is."""
        return "" if self.kind == FILES else self.kind


class Try(Record):
    """A call of the client that could not reach the repository, and what it said of that."""

    status: int
    seconds: float
    reason: str


class Called:
    """The account of one client run; ``repository`` names its repository where it has a name.

    ``began`` is when the client was started, as time(3) has it. ``proved`` says that its own
    words are enough to know that all is in the backup. Of a volume, ``size`` is what there is
    to read of it, in bytes, ``streamed`` what the client said that it has stored, and
    ``fingerprint`` what a restore drill can compare.
    """

    def __init__(self, run: ClientRun, repository: str = "") -> None:
        self.run, self.repository = run, repository
        self.words: list[str] = []
        self.tries: list[Try] = []  # those before the last
        self.request: Request | None = None
        self.began = 0.0
        self.status: int | None = None
        self.seconds = 0.0
        self.figures = Figures()
        self.printed = ""  # the end of what it printed
        self.complaints = ""  # what it said on standard error that is to be told
        self.saved = False  # whether there is a backup, which may lack something
        self.lacking = False  # whether it does
        self.proved = False
        self.size: int | None = None
        self.streamed: Streamed | None = None
        self.fingerprint: Fingerprint | None = None
        self.proof: tuple[int, int] | None = None  # so many datasets found in it, of so many
        self.backups: tuple[str, ...] = ()  # the ids of those that were found in the repository

    @property
    def name(self) -> str:
        """What people call it: what it backs up, and where to if there is a choice."""
        what = self.run.of or self.run.kind
        return f"{what} to {self.repository}" if self.repository else what

    @property
    def outcome(self) -> str:
        """What became of it: ``success``, ``incomplete``, ``failed`` or ``not run``."""
        if self.saved:
            return "incomplete" if self.lacking else "success"
        return "not run" if self.status is None else "failed"

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of whatever came from outside."""
        self.words = [hide(word) for word in self.words]
        self.tries = [each._replace(reason=hide(each.reason)) for each in self.tries]
        self.printed, self.complaints = hide(self.printed), hide(self.complaints)
