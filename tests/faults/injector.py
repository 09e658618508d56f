"""Faults at any call of any program: small wrappers in front of the sandbox's stand-ins.

Every call of a wrapped program in the fake host is counted; what the plan says about that
call is done to it or to who called it. The program under test is not changed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from support.machine import MODULES, Sandbox
from support.patience import PATIENCE

# Outside of everything that is backed up, and to be seen in the view as well.
PLACE = "/kt/faults"
TOP = "/kt/kta"
RESTOMIC = "/usr/local/sbin/restomic"

WRAPPED = {
    "zfs": "/sbin/zfs", "mount": "/sbin/mount", "mount_nullfs": "/sbin/mount_nullfs",
    "umount": "/sbin/umount", "sysctl": "/sbin/sysctl", "kldstat": "/sbin/kldstat",
    "zpool": "/sbin/zpool", "fstat": "/usr/bin/fstat", "hook": f"{PLACE}/hook",
    "client": "/kt/client",
    # These stand for system calls: see tests/sandbox/syscalls.py.
    "nmount": "/usr/libexec/syscall/nmount", "unmount": "/usr/libexec/syscall/unmount",
    "getfsstat": "/usr/libexec/syscall/getfsstat",
}  # fmt: skip

# The system calls among them: what makes them is stopped at them, and they fail with a number.
CALLS = ("nmount", "unmount", "getfsstat")

# Counts calls and reads the plan, "NUMBER ACTION WORDS...". At that call it sources the action.
WRAPPER = """\
#!/bin/sh
# The view cannot be written where / is frozen, and nothing in there is counted.
n=1
[ -f {place}/count ] && read -r n < {place}/count && n=$((n + 1))
echo $n > {place}/count
real={place}/real/${{0##*/}}
printf '%s %s %s\\n' $n "${{0##*/}}" "$1" >> {place}/calls
read -r at action < {place}/plan
[ "$n" = "$at" ] || exec "$real" "$@"
. {place}/actions/$action
"""

# The client stands for a backup: it reads all it is given and writes down what it read.
CLIENT = f"""\
#!/bin/sh
n=0
[ -f {PLACE}/client-plan ] && . {PLACE}/client-plan
find "$@" -type f -print0 | sort -z | xargs -0 md5sum > {PLACE}/seen || exit 9
"""

HOOK = "#!/bin/sh\nexit 0\n"

# What a program is to do may be on its standard input, which sh(1) takes from it in the
# background unless that is said before.
BESIDE = 'exec 3<&0\n"$real" "$@" <&3 &\n'


def actions() -> dict[str, str]:
    """Return every way in which a call can go wrong, as sh text by name."""
    made: dict[str, str] = {}
    signals = {"KILL": ("one", "group"), "TERM": (), "INT": (), "HUP": ()}
    for name in signals:
        for whom in ("one", "group", "twice"):
            if name == "KILL" and whom == "twice":
                continue
            target = "-$PPID" if whom == "group" else "$PPID"
            send = f"kill -{name} {target}"
            if whom == "twice":
                send += f"; sleep 0.02; {send}"
            goes_on = "exit 1" if name == "KILL" else 'exec "$real" "$@"'
            made[f"{name}-{whom}-before"] = f"{send}\n{goes_on}\n"
            made[f"{name}-{whom}-inside"] = f"{BESIDE}{send}\nwait $!\n"
            made[f"{name}-{whom}-after"] = f'"$real" "$@"\ns=$?\n{send}\nexit $s\n'
    cut = f"echo > {PLACE}/cut\nsleep 60\n"
    made["power-before"] = cut
    made["power-inside"] = f"{BESIDE}{cut}"
    made["power-after"] = f'"$real" "$@"\n{cut}'
    made["late"] = (
        'exec 3<&0\n(sleep 8; exec "$real" "$@" <&3 > /dev/null 2>&1) &\nexec sleep 300\n'
    )
    return made


def failures() -> dict[str, str]:
    """Return the ways of failing that any program has."""
    big = "head -c 104857600 /dev/zero | tr '\\000' x"
    lines = "yes 'all work and no play' | head -c 104857600"
    return {
        "hang": "exec sleep 300\n",
        "hang-after": '"$real" "$@"\nexec sleep 300\n',
        "killed": "kill -KILL $$\n",
        "killed-after": '"$real" "$@"\nkill -KILL $$\n',
        "segv": "kill -SEGV $$\n",
        "garbage": "printf '\\377\\000{]\\t\\033[31m\\nnonsense\\n'\nexit 0\n",
        "garbage-and-done": "printf 'odd\\n\\377\\000{]\\n'\n" + 'exec "$real" "$@"\n',
        "silent-1": "exit 1\n",
        "status-after": '"$real" "$@"\nexit 1\n',
        "garbage-1": "printf '\\377\\000\\033[31m\\r\\n\\n\\n' >&2\nexit 1\n",
        "100MB-out": f"{lines}\nexit 0\n",
        "100MB-and-done": f'{lines}\nexec "$real" "$@"\n',
        "100MB-err": f"{big} >&2\nexit 1\n",
    }


# What FreeBSD 14.2 was seen to answer: status and message, by program and first argument.
ANSWERS = {
    "zfs list": [(1, "internal error: failed to initialize ZFS library"),
                 (1, "cannot iterate filesystems: I/O error")],
    "zfs program": [(1, "Channel program execution failed: out of space"),
                    (1, "Channel program execution failed: pool is read-only"),
                    (1, "Channel program execution failed: memory limit exhausted"),
                    (2, "cannot open 'kta': no such pool")],
    "zfs destroy": [(1, "cannot destroy snapshot kta/home@x: dataset is busy"),
                    (1, "cannot destroy snapshots: pool 'kta' is read-only")],
    "zfs get": [(1, "internal error: out of memory")],
    "zfs holds": [(1, "internal error: out of memory")],
    "zfs hold": [(1, "cannot hold: pool is read-only"),
                 (1, "cannot hold snapshot 'kta/src@auto-1': out of space")],
    "zfs release": [(1, "cannot release: pool I/O is currently suspended"),
                    (1, "cannot release hold from snapshot 'kta/src@auto-1': dataset is busy")],
    "mount_nullfs": [(1, "mount_nullfs: /x: Resource deadlock avoided"),
                     (1, "mount_nullfs: /x: Operation not permitted"),
                     (64, "mount_nullfs: /kt/kta/home/.zfs: No such file or directory")],
    "mount": [(1, "mount: /dev: Operation not supported by device")],
    "umount": [(1, "umount: unmount of /x failed: Device busy"),
               (1, "umount: /x: not a file system root directory")],
    "client": [(1, "Fatal: unable to open repository"), (3, "some files could not be read")],
    # errno(2): as Linux has them, on which the fake host runs.
    "nmount": [(errno.EPERM, ""), (errno.ENOENT, ""), (errno.EBUSY, ""), (errno.EDEADLK, ""),
               (errno.EOPNOTSUPP, "")],
    "unmount": [(errno.EBUSY, ""), (errno.ENOENT, ""), (errno.EPERM, "")],
    "getfsstat": [(errno.EFAULT, ""), (errno.EINVAL, "")],
    "sysctl": [(1, "sysctl: unknown oid 'security.jail.jailed'")],
    "kldstat": [(1, "kldstat: can't find module zfs: No such file or directory")],
    "fstat": [(1, "fstat: can't read mount table")],
    "hook": [(3, "database is gone")],
}  # fmt: skip


@dataclass
class Case:
    """What came of one injected fault."""

    status: int | None
    output: str
    seconds: float
    calls: list[str] = field(default_factory=list)


# Time limits are shortened by what starts the program, since the tests cannot wait for hours.
QUICK = f"""\
import sys
sys.path.insert(0, {MODULES!r})
from kopiatomic.backup import takedown
from kopiatomic.system import command, process
before = command.Door.run
def run(self, argv, *, time_limit=900.0, **options):
    return before(self, argv, time_limit=min(time_limit, 1.5), **options)
command.Door.run = run
command.KILL_GRACE = takedown.GRACE = 1.0
process.GRACE = 3.0
from kopiatomic.cli import restomic
sys.exit(restomic())
"""

FOREIGN_SNAPSHOTS = (
    "kta/home@before",
    "kta/home@restomic-20200101T000000Z-0123456789ab",
    "kta/src@kopiatomic-20200101T000000Z-0123456789ab",
)


class Injected:
    """A sandbox host with a pool, things that are not ours, and wrappers in front."""

    def __init__(self, directory: Path) -> None:
        self.existing: list[str] = []  # with --snapshot: what is taken in place of new ones
        self.machine = Sandbox(directory)
        self.host = self.machine.host
        self.machine.make_pool("kta")
        self.run("zfs create kta/home; zfs create kta/home/ben; zfs create kta/src")
        for where in ("home", "home/ben", "src"):
            for number in range(3):
                self.path(f"{TOP}/{where}/file{number}").write_text(f"{where} {number}\n")
        self._foreign()
        self._wrap()
        self.witness = self.files()
        self.mine = self.state()
        assert not self.left_over()

    def _foreign(self) -> None:
        self.run("; ".join(f"zfs snapshot '{name}'" for name in FOREIGN_SNAPSHOTS))
        # Ours by its property, but of another job.
        self.run("zfs snapshot -o org.kopiatomic:run=restomic:default2:1 kta/home/ben@restomic-1")
        # For others to take, and held by others as well.
        self.run("zfs snapshot -r kta@auto-1; zfs hold keep kta/src@auto-1")
        self.run("zfs hold restomic:default2:0123456789ab kta/src@auto-1")
        self.run("mkdir /kt/there /var/run/elsewhere")
        self.mount_foreign()

    def mount_foreign(self) -> None:
        self.run(
            "mount_nullfs -o ro /kt/kta/home/.zfs/snapshot/before /kt/there;"
            "mount -t tmpfs tmpfs /var/run/elsewhere"
        )

    def _wrap(self) -> None:
        self.host.calls_by_program()
        self.run(f"mkdir -p {PLACE}/real {PLACE}/actions")
        place = self.path(PLACE)
        (place / "hook").write_text(HOOK)
        (place / "hook").chmod(0o755)
        client = self.path("/kt/client")
        client.write_text(CLIENT)
        client.chmod(0o755)
        for name, where in WRAPPED.items():
            program = self.path(where)
            (place / "real" / name).write_text(program.read_text())
            (place / "real" / name).chmod(0o755)
            program.chmod(0o755)
            program.write_text(WRAPPER.format(place=PLACE))
        for name, text in {**actions(), **failures()}.items():
            (place / "actions" / name).write_text(text)
        for program, answers in ANSWERS.items():
            for number, (status, message) in enumerate(answers):
                name = f"{program.replace(' ', '-')}-{number}"
                text = f"echo {shlex.quote(message)} >&2\nexit {status}\n"
                (place / "actions" / name).write_text(text)
        (place / "quick").write_text(f"#!/usr/local/bin/python3 -IXutf8\n{QUICK}")
        (place / "quick").chmod(0o755)
        self.plan(0)

    def path(self, path: str) -> Path:
        return self.machine.path(path)

    def run(self, script: str) -> None:
        result = self.machine.run(["/bin/sh", "-ec", script])
        assert result.returncode == 0, result.stderr

    def plan(self, number: int, action: str = "none") -> None:
        """Say what happens at which call, and begin to count."""
        place = self.path(PLACE)
        (place / "plan").write_text(f"{number} {action}\n")
        for name in ("count", "calls", "cut", "seen", "client-plan", "started", "snapped"):
            (place / name).unlink(missing_ok=True)
        # A sweep notes that it has looked: the next run has fewer calls then, and the number
        # would be that of another one.
        for mark in self.path("/var/run").glob("kopiatomic.searched*"):
            mark.unlink()
        if self.existing:
            # Of what the last good backup has, no new one would be made.
            history = self.path("/var/db/kopiatomic/restomic.default.history")
            history.unlink(missing_ok=True)

    def words(self, program: str, job: str = "default") -> list[str]:
        hook = f"exec {PLACE}/hook"
        hooks = [word for each in "psq" for word in (f"-{each}", f"{hook} {each}")]
        return [program, *self.existing, "--plain", "-j", job, "-c", "/kt/client", *hooks,
                "-r", "kta/home", "kta/src"]  # fmt: skip

    def start(self, program: str = RESTOMIC) -> subprocess.Popen[str]:
        output = open(self.host.directory / "output", "w")  # noqa: SIM115
        with output:
            return self.machine.popen(
                self.words(program), stdout=output, stderr=output, new_group=True
            )

    def attempt(self, program: str = RESTOMIC, limit: float = 60.0, delay: float = 0.0) -> Case:
        """Run the job once, cutting the power or killing the run after ``delay`` if so planned."""
        began = time.monotonic()
        process = self.start(program)
        cut = self.path(f"{PLACE}/cut")
        if delay:
            time.sleep(delay)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
        while process.poll() is None:
            if cut.exists():
                self.host.power_cut()
                process.wait()
                self.host.boot()
                self.mount_foreign()
                break
            if time.monotonic() - began > limit * PATIENCE:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            time.sleep(0.005)
        seconds = time.monotonic() - began
        output = (self.host.directory / "output").read_text(errors="replace")
        return Case(process.returncode, output, seconds, self.calls())

    def calls(self) -> list[str]:
        path = self.path(f"{PLACE}/calls")
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ", 1)[1] for line in lines]

    # -- what is there -----------------------------------------------------------------------

    def _query(self, query: str) -> list[tuple[object, ...]]:
        # Not on FreeBSD, where python comes without it.
        import sqlite3

        with open(self.host.directory / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            database = sqlite3.connect(self.host.directory / "state.sqlite")
            try:
                return database.execute(query).fetchall()
            finally:
                database.close()

    def snapshots(self) -> dict[str, str]:
        """Every snapshot, and the value of our property on it."""
        rows = self._query(
            "select d.name || '@' || s.name, coalesce(p.value, '') from snapshots s"
            " join datasets d on d.id = s.dataset left join snapprops p"
            " on p.snapshot = s.id and p.name = 'org.kopiatomic:run'"
        )
        return {str(name): str(value) for name, value in rows}

    def holds(self) -> list[tuple[str, str]]:
        """Every hold: the snapshot, and the tag."""
        rows = self._query(
            "select d.name || '@' || s.name, h.tag from holds h join snapshots s"
            " on s.id = h.snapshot join datasets d on d.id = s.dataset"
        )
        return sorted((str(name), str(tag)) for name, tag in rows)

    def mounts(self) -> list[tuple[str, str]]:
        rows = self._query("select special, node from mounts where kernel != -2")
        return sorted((str(special), str(node)) for special, node in rows)

    def state(self) -> tuple[object, ...]:
        """Everything that has to be the same after as before."""
        return self.snapshots(), self.mounts(), self.holds()

    def files(self) -> dict[str, tuple[object, ...]]:
        """Every file and directory on the live datasets."""
        found: dict[str, tuple[object, ...]] = {}
        for directory, _, names in os.walk(self.path(TOP)):
            for name in (".", *names):
                status = os.lstat(f"{directory}/{name}")
                key = os.path.relpath(f"{directory}/{name}", self.path(TOP))
                found[key] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_uid)
        return found

    def left_over(self, job: str = "default") -> list[str]:
        """Name whatever a run has left behind."""
        left = [
            f"snapshot {name}" for name, run in self.snapshots().items()
            if run.startswith(f"restomic:{job}:")
        ]  # fmt: skip
        left += [
            f"hold {name}" for name, tag in self.holds() if tag.startswith(f"restomic:{job}:")
        ]  # fmt: skip
        left += [f"mount {node}" for _, node in self.mounts() if f"/var/run/restomic/{job}" in node]
        kernel = Path(f"/proc/{self.host._init}/mounts").read_text()
        if f"/var/run/restomic/{job}/" in kernel:
            left.append("a mount of the kernel's")
        run = self.path("/var/run/restomic")
        if (run / job).exists():
            left.append(f"directory /var/run/restomic/{job}")
        notes = self.path("/var/db/kopiatomic")
        for what in ("unfinished", "holds"):
            left += [str(each) for each in notes.glob(f"restomic.{job}.{what}")]
        left += [str(each) for each in notes.glob(f"restomic.{job}.*.new")]
        lock = run / f"{job}.lock"
        if lock.exists():
            with open(lock) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    left.append("the lock")
        return left

    def backup_is_right(self) -> bool:
        """Say whether the client read all of the files as they are."""
        seen = self.path(f"{PLACE}/seen")
        if not seen.exists():
            return False
        names = sorted(line.split("  ", 1)[1] for line in seen.read_text().splitlines())
        wanted = sorted(
            f"{TOP}/{where}/file{n}" for where in ("home", "home/ben", "src") for n in range(3)
        )
        return names == wanted

    def check_clean(self) -> list[str]:
        """Name whatever is not as it was before the run."""
        wrong = self.left_over()
        if self.state() != self.mine:
            wrong.append(f"what is not ours has changed: {self.state()} was {self.mine}")
        if self.files() != self.witness:
            wrong.append("live files have changed")
        return wrong

    def history_reads(self) -> bool:
        import json

        path = self.path("/var/db/kopiatomic/restomic.default.history")
        try:
            for line in path.read_text().splitlines() if path.exists() else []:
                json.loads(line)
        except ValueError:
            return False
        return True

    def next_run(self) -> list[str]:
        """Do an ordinary run and name what is wrong after it."""
        self.plan(0)
        case = self.attempt()
        wrong = self.check_clean()
        if case.status != 0:
            wrong.append(f"the next run has status {case.status}: {case.output}")
        if not self.backup_is_right():
            wrong.append("the next run's backup is not right")
        if not self.history_reads():
            wrong.append("the history cannot be read")
        return wrong

    def sweep(self) -> list[str]:
        """Sweep by hand and name what is wrong after it."""
        self.plan(0)
        result = self.machine.run([RESTOMIC, "--sweep"])
        wrong = self.check_clean()
        if result.returncode != 0:
            wrong.append(f"--sweep has status {result.returncode}: {result.stderr}")
        return wrong

    def close(self) -> None:
        self.machine.close()
