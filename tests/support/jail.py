"""A jail on FreeBSD: base's own programs, and an /etc, a /usr/local and a /var of the tests'.

periodic(8) reads the files of periodic.conf(5) from places that nobody can choose, and mails to
root. In a jail those places, the periodic directories and the mailbox are the tests' own, and
the name of the host is what the tests expect; all that runs is FreeBSD's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.machine import ENVIRONMENT
from support.patience import PATIENCE

HOSTNAME = "fbsd142.test"
# Mounted there read-only: programs, what they are linked with, locales and time zones.
BASE = "bin sbin lib libexec usr/bin usr/sbin usr/lib usr/libexec usr/share".split()
OWN = (
    "dev etc/mail root tmp usr/local/sbin usr/local/libexec usr/local/etc/periodic"
    " var/log var/mail var/run var/tmp"
).split()
# Of base's scripts only those that start the security scripts: the others look at the machine.
COPIED = (
    "etc/defaults/periodic.conf", "etc/periodic/daily/450.status-security",
    "etc/periodic/weekly/450.status-security", "etc/periodic/monthly/450.status-security",
    "etc/periodic/security/security.functions",
)  # fmt: skip
MAILER = """#!/bin/sh
# What mail(1) hands over comes into the mailbox of root, as dma(8) writes it there.
{ echo "From root@$(hostname) $(date)"; sed 's/^From />From /'; echo; } >> /var/mail/root
"""


class Jail:
    """A jail that lasts until it is closed; programs run in it as root."""

    is_sandbox = False

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kopiatomic-jail-", dir="/var/tmp"))
        self.name = f"kt{os.getpid()}"
        self._mounted: list[Path] = []
        self._made = False
        try:
            self._populate()
            self._mount()
            self._outside("jail", "-c", f"name={self.name}", f"path={self.root}",
                          f"host.hostname={HOSTNAME}", "persist")  # fmt: skip
            self._made = True
        except BaseException:
            self.close()
            raise

    def _populate(self) -> None:
        for name in OWN:
            (self.root / name).mkdir(parents=True)
        for name in COPIED:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"/{name}", self.root / name)
        etc = self.root / "etc"
        (etc / "group").write_text("wheel:*:0:root\n")
        (etc / "master.passwd").write_text("root:*:0:0::0:0:root:/root:/bin/sh\n")
        self._outside("pwd_mkdb", "-p", "-d", str(etc), str(etc / "master.passwd"))
        (etc / "mail/mailer.conf").write_text("sendmail /usr/local/libexec/mailer\n")
        mailer = self.root / "usr/local/libexec/mailer"
        mailer.write_text(MAILER)
        mailer.chmod(0o755)

    def _mount(self) -> None:
        for name in BASE:
            if os.path.isdir(f"/{name}"):
                place = self.root / name
                place.mkdir(parents=True, exist_ok=True)
                self._outside("mount", "-t", "nullfs", "-o", "ro", f"/{name}", str(place))
                self._mounted.append(place)
        place = self.root / "dev"
        self._outside("mount", "-t", "devfs", "-o", "ruleset=4", "devfs", str(place))
        self._mounted.append(place)

    @staticmethod
    def _outside(*argv: str) -> None:
        subprocess.run(argv, env=ENVIRONMENT, check=True, stdin=subprocess.DEVNULL)

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, check: bool = False,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command in the jail to its end."""
        return subprocess.run(
            ["/usr/sbin/jexec", self.name, *argv], env={**ENVIRONMENT, **(env or {})},
            check=check, text=True, timeout=timeout * PATIENCE, stdin=subprocess.DEVNULL,
            capture_output=True, start_new_session=True,
        )  # fmt: skip

    def path(self, path: str) -> Path:
        """Return how this process reaches a file of the jail."""
        return self.root / path.lstrip("/")

    def close(self) -> None:
        """Remove the jail and all that was made for it."""
        if self._made:
            self._outside("jail", "-r", self.name)
        for place in reversed(self._mounted):
            self._outside("umount", str(place))
        # Nothing that is the machine's is below it any more: the last umount has succeeded.
        shutil.rmtree(self.root)
