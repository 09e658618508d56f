"""The ways in which kopiatomic says no, and the exit statuses of sysexits(3)."""

EX_USAGE = 64
EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_OSERR = 71
EX_CANTCREAT = 73
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78

# What the exit status of a script tells periodic(8), beside 0: nothing to tell.
PERIODIC_INFORMATION = 1
PERIODIC_TROUBLE = 3


class Refusal(Exception):
    """Something is wrong that the user can correct.

    The message is one line that says what is wrong and what to do about it;
    ``status`` is the sysexits(3) exit status that goes with it, or 128 and the
    number of a signal that came before anything was done.
    """

    def __init__(self, message: str, status: int = EX_USAGE) -> None:
        super().__init__(message)
        self.status = status
