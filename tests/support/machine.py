"""A machine to test on: the sandbox host on Linux, or this very FreeBSD machine.

Behaviour tests use nothing but what is here, so that the same tests run on both.
Mount points of theirs lie below ``BASE``, pools of theirs begin with ``kt``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from support import clients
from support.patience import PATIENCE, Patient

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = "/kt"
PROGRAMS = ("kopiatomic", "restomic")
# Where the port puts the module on the sandbox host.
MODULES = "/usr/local/libexec/kopiatomic"
STATE, KEPT = Path("/var/db/kopiatomic"), Path("/var/db/kopiatomic.kept-by-tests")
PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "TZ": "UTC"}


# What FreeBSD has for a night, but for the scripts that look at the machine.
PERIODIC_FILES = (
    "usr/sbin/periodic", "etc/defaults/periodic.conf", "etc/periodic/security/security.functions",
    *(f"etc/periodic/{each}/450.status-security" for each in ("daily", "weekly", "monthly")),
)  # fmt: skip
# mail -E -s SUBJECT USER, into a file beside the directory that it is in.
MAIL = """#!/bin/sh
text=$(cat; echo x)
[ "$text" = x ] ||
    printf 'From root\\nSubject: %s\\n\\n%s\\n' "$3" "${text%x}" >> "${0%/*}/../mailbox"
"""
# A session has no terminal before one of its processes asks for it.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Machine(Protocol):
    """What the tests ask of a machine."""

    is_sandbox: bool
    # Whether backups that are run by their names save the layout of the pools, as they do.
    layouts: bool
    # Where the programs and the scripts for periodic(8) are, and the file that configures those.
    prefix: str
    periodic_conf: str

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, check: bool = False,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command to its end."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command; its pid is the program's own."""

    def path(self, path: str) -> Path:
        """Return how this process reaches a file of the machine."""

    def make_pool(self, name: str, device: str = "") -> None:
        """Make a pool on a file or on this device, mounted below BASE; it goes with the machine."""

    def make_disk(self, megabytes: int) -> str:
        """Make an empty disk in memory, by md(4); return its name. It goes with the machine."""

    def install_periodic(self) -> None:
        """Put what is made of templates, the scripts for periodic(8) above all, in its place."""

    def periodic(self, period: str = "daily") -> list[str]:
        """Let a night pass; return the mails to root that it sent, oldest first."""

    def close(self) -> None:
        """Remove everything that was made."""


# With these a program makes no backup.
INSTEAD = {"--status", "--check", "--sweep", "--upkeep", "--drill", "--layout", "-h", "-v"}


def as_tested(argv: Sequence[str], layouts: bool) -> list[str]:
    """Return a command line as the tests run it: a backup without the layout, but in its own."""
    is_backup = os.path.basename(argv[0]) in PROGRAMS and not INSTEAD & set(argv)
    return [argv[0], *(["--no-layout"] if is_backup and not layouts else []), *argv[1:]]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return as soon as a condition holds; it has to within so many seconds."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def shell(machine: Machine, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script by sh and expect it to succeed."""
    result = machine.run(["/bin/sh", "-ec", script], **options)
    assert result.returncode == 0, result.stderr + result.stdout
    return result


def new_disk(machine: Machine, megabytes: int) -> str:
    """Make a disk in memory, of a number that is free, and return its name."""
    made = machine.run(["mdconfig", "-a", "-t", "swap", "-s", f"{megabytes}m"], check=True)
    return made.stdout.strip()


class Sandbox:
    """The sandbox host with kopiatomic, and the real clients where they are, installed."""

    is_sandbox, layouts = True, False
    prefix, periodic_conf = "/usr/local", "/etc/periodic.conf"

    def __init__(self, directory: Path, root_dataset: str = "") -> None:
        # Not on FreeBSD: the sandbox host is made of Linux.
        from sandbox.host import Host

        self.host = Host.create(directory, root_dataset=root_dataset)
        self.install()

    def install(self) -> None:
        """Put the module, the executables and the clients where the port puts them."""
        root = self.host.root
        shutil.copytree(
            CHECKOUT / "src/kopiatomic", root / MODULES[1:] / "kopiatomic",
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        write_executables(root / "usr/local/sbin", "/usr/local/bin/python3")
        self.install_clients()

    def install_clients(self) -> None:
        """Put the clients that are there now where packages put them."""
        for name, path in (("restic", clients.restic()), ("kopia", clients.kopia())):
            if path is not None:
                link = self.host.root / "usr/local/bin" / name
                link.unlink(missing_ok=True)
                link.symlink_to(f"/compat/linux{path}")

    def install_periodic(self) -> None:
        render("--destdir", str(self.host.root), "--prefix", self.prefix)

    def periodic(self, period: str = "daily") -> list[str]:
        """Let a night pass; return the mails to root that it sent, oldest first."""
        mailbox = self.path("/var/mail/root")
        mailbox.unlink(missing_ok=True)
        result = self.run(["periodic", period], timeout=300)
        assert result.returncode == 0, result.stderr
        return mails_in(mailbox)

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, check: bool = False,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        argv = as_tested(argv, self.layouts)
        return self.host.run(argv, env=dict(env or {}), check=check, timeout=timeout)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        return self.host.popen(as_tested(argv, self.layouts), **options)

    def path(self, path: str) -> Path:
        return self.host.root / path.lstrip("/")

    def make_pool(self, name: str, device: str = "") -> None:
        device = device or f"/dev/{name}"
        self.run(["zpool", "create", "-m", f"{BASE}/{name}", name, device], check=True)

    def make_disk(self, megabytes: int) -> str:
        return new_disk(self, megabytes)

    def close(self) -> None:
        violations = self.host.violations()
        self.host.shut_down()
        assert not violations, violations


class FreeBSD:
    """The machine that the tests run on: FreeBSD, as root."""

    is_sandbox, layouts = False, False

    def __init__(self) -> None:
        assert not os.path.lexists(BASE), f"{BASE} is in the way: the tests need that name"
        self._set_state_aside()
        self.directory = Path(tempfile.mkdtemp(prefix="kopiatomic-test-", dir="/var/tmp"))
        self.pools: list[str] = []
        self.disks: list[str] = []
        self.prefix = str(self.directory)
        self.periodic_conf = f"{self.prefix}/etc/periodic.conf"
        self.programs = self.directory / "sbin"
        self.programs.mkdir()
        self._write_programs()

    def _write_programs(self) -> None:
        for program in PROGRAMS:
            script = self.programs / program
            script.write_text(
                f"#!{sys.executable} -IXutf8\nimport sys\n"
                f"sys.path.insert(0, {str(CHECKOUT / 'src')!r})\n"
                f"from kopiatomic.cli import {program}\nsys.exit({program}())\n"
            )
            script.chmod(0o755)

    @staticmethod
    def _set_state_aside() -> None:
        """Keep the history of the machine's own jobs; it comes back in the end."""
        if STATE.is_dir() and not KEPT.exists():
            STATE.rename(KEPT)
        shutil.rmtree(STATE, ignore_errors=True)

    def _translated(self, argv: Sequence[str]) -> list[str]:
        first, *rest = as_tested(argv, self.layouts)
        if os.path.basename(first) in PROGRAMS:
            first = str(self.programs / os.path.basename(first))
        return [first, *rest]

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, check: bool = False,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        environment = {**ENVIRONMENT, "LC_ALL": "C.UTF-8", **(env or {})}
        return subprocess.run(
            self._translated(argv), env=environment, check=check, text=True,
            timeout=timeout * PATIENCE, stdin=subprocess.DEVNULL, capture_output=True,
            start_new_session=True,
        )  # fmt: skip

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in a group of its own, or with ``start_new_session`` on its terminal."""
        environment = {**ENVIRONMENT, **(options.pop("env", None) or {})}
        options.pop("new_group", None)
        argv = self._translated(argv)
        if options.get("start_new_session"):
            argv = [sys.executable, "-IS", "-c", TAKE_TERMINAL, *argv]
        else:
            options["process_group"] = 0
        return Patient(argv, env=environment, text=True, **options)

    def install_periodic(self) -> None:
        """As in the sandbox, but in the tests' own directory, and nothing reads the machine's."""
        render("--prefix", self.prefix, "--localbase", self.prefix)
        for path in (self.directory / "etc/periodic").glob("*/*"):
            self._write_periodic(path, path)
        for name in PERIODIC_FILES:
            self._write_periodic(Path(f"/{name}"), self.directory / name.removeprefix("usr/"))
        self._write(self.programs / "mail", MAIL)

    def _write_periodic(self, source: Path, path: Path) -> None:
        """Write a file of periodic(8)'s with the tests' own places in it."""
        text, own = source.read_text(), self.prefix
        text = text.replace("/etc/periodic ${local_periodic}", "${local_periodic}")
        text = text.replace("${_localbase}", own)
        conf = r"(?<![\w}])(/etc/(defaults/)?periodic\.conf)"
        text = re.sub(conf, lambda found: own + found[1], text)
        text = text.replace("/var/run/periodic.", f"{own}/periodic.")
        self._write(path, text.replace("export PATH=", f"export PATH={own}/sbin:"))

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o555)

    def periodic(self, period: str = "daily") -> list[str]:
        """As in the sandbox, by what FreeBSD has for it, with the tests' own places in it."""
        mailbox = self.directory / "mailbox"
        mailbox.unlink(missing_ok=True)
        result = self.run([str(self.programs / "periodic"), period], timeout=300)
        assert result.returncode == 0, result.stderr
        return mails_in(mailbox)

    def path(self, path: str) -> Path:
        return Path(path)

    def make_pool(self, name: str, device: str = "") -> None:
        if not device:
            device = str(self.directory / f"{name}.img")
            with open(device, "wb") as file:
                file.truncate(256 << 20)
        self.run(["zpool", "create", "-m", f"{BASE}/{name}", name, device], check=True)
        self.pools.append(name)

    def make_disk(self, megabytes: int) -> str:
        self.disks.append(new_disk(self, megabytes))
        return self.disks[-1]

    def close(self) -> None:
        try:
            self._remove_what_was_made()
        finally:
            shutil.rmtree(STATE, ignore_errors=True)
            if KEPT.exists():
                KEPT.rename(STATE)
        # Only when nothing is mounted there any more: it could be the machine's own.
        table = self.run(["mount", "-p"], check=True).stdout
        inside = [line for line in table.splitlines() if f"{BASE}/" in line]
        assert not inside, f"still mounted below {BASE}: {inside}"
        shutil.rmtree(BASE, ignore_errors=True)

    def _remove_what_was_made(self) -> None:
        # What a test that failed has left may be mounted still, or a stub in a program's place.
        self._write_programs()
        for program in PROGRAMS:
            self.run([program, "--sweep"])
        # A test may have destroyed or exported one itself.
        there = self.run(["zpool", "list", "-H", "-o", "name"], check=True).stdout.split()
        for pool in reversed([each for each in self.pools if each in there]):
            self._destroy(pool)
        there = self.run(["mdconfig", "-l"], check=True).stdout.split()
        for disk in [each for each in self.disks if each in there]:
            self.run(["mdconfig", "-d", "-u", disk], check=True)
        shutil.rmtree(self.directory)

    def _destroy(self, pool: str) -> None:
        # It is busy for a moment after an import: GEOM looks at its volumes.
        wait_for(lambda: self.run(["zpool", "destroy", "-f", pool]).returncode == 0, 10)


def mails_in(mailbox: Path) -> list[str]:
    """Return the mails in a mailbox, if there is one."""
    text = mailbox.read_text() if mailbox.exists() else ""
    return [f"From {mail}" for mail in ("\n" + text).split("\nFrom ")[1:]]


def render(*words: str) -> None:
    """Write what periodic/render.py makes, by its own command line."""
    # The demo runs by the system's Python, beside which .venv is being made.
    python = sys.executable if find_spec("jinja2") else str(CHECKOUT / ".venv/bin/python")
    subprocess.run([python, str(CHECKOUT / "periodic/render.py"), *words], check=True)


def write_executables(directory: Path, python: str) -> None:
    """Write both programs into a directory, as the port does."""
    text = (CHECKOUT / "files/executable.in").read_text()
    for program in PROGRAMS:
        script = directory / program
        made = text.replace("/usr/local/bin/python3", python).replace("%%PROGRAM%%", program)
        script.write_text(made.replace("%%MODULES%%", MODULES))
        script.chmod(0o755)
