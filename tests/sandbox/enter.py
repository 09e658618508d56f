"""Start a program inside a running host: `enter.py JSON ARGV...`, PID of the program to a pipe.

The program is made a child of whoever started this script, which then is out of the way:
signals, exit status and waiting are between the caller and the program itself.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sandbox import kernel
from sandbox.launch import execute


def main() -> None:
    """Join, fork, report, leave."""
    init, report, session, user, cwd = sys.argv[1:6]
    argv = sys.argv[6:]
    root = os.open(f"/proc/{init}/root", os.O_RDONLY | os.O_DIRECTORY)
    spaces = [os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY) for name in ("mnt", "pid", "uts")]
    for space in spaces:
        kernel.setns(space)
    child = kernel.fork_sibling()
    if child:
        os.write(int(report), str(child).encode())
        os._exit(0)
    # The caller reads the other end to its end.
    os.close(int(report))
    try:
        _become(root, session, user, cwd)
        raise execute(argv)
    except OSError as error:
        os.write(2, f"sandbox: {argv[0]}: {error.strerror}\n".encode())
        os._exit(126 if error.errno == 13 else 127)


def _become(root: int, session: str, user: str, cwd: str) -> None:
    os.fchdir(root)
    os.chroot(".")
    os.chdir(cwd)
    if session == "session":
        os.setsid()
        if os.isatty(0):
            import fcntl

            fcntl.ioctl(0, 0x540E, 0)  # TIOCSCTTY: ^C on the terminal reaches the program
    elif session == "group":
        os.setpgid(0, 0)
    if user:
        uid, gid = _ids(user)
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o022)


def _ids(user: str) -> tuple[int, int]:
    with open("/etc/passwd") as lines:
        for line in lines:
            words = line.split(":")
            if words[0] == user:
                return int(words[2]), int(words[3])
    raise OSError(2, f"no user {user}")


if __name__ == "__main__":
    main()
