"""A system call as a program, for tests that put something in front of it; see syscalls.py.

`NAME WORD...` answers on standard output; its status is the number of the error.
"""

from __future__ import annotations

import errno
import os
import time

from sandbox.calls import answer


def main(name: str, arguments: list[str]) -> int:
    """The call of that name."""
    try:
        data = answer(name, arguments)
    except OSError as error:
        return error.errno or errno.EIO
    while data is None:
        time.sleep(3600)
    while data:
        data = data[os.write(1, data):]
    return 0
