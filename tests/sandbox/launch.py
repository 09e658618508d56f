"""Become another program, without needing python's library any more: / may have changed."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os


def execute(argv: list[str]) -> OSError:
    """execvp(3); returns what is wrong when it fails."""
    # Python ignores these for itself; the program must find them as usual.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    places = [""] if "/" in argv[0] else os.environ.get("PATH", "/bin:/usr/bin").split(":")
    wrong = OSError(2, os.strerror(2))
    for place in places:
        try:
            os.execve(os.path.join(place, argv[0]), argv, dict(os.environ))
        except OSError as error:
            # Found but not allowed is worth more than not found further on.
            if error.errno not in (2, 20):
                wrong = error
    return wrong
