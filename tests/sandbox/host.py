"""The fake FreeBSD machine as tests use it. Linux only, as root.

    with Host.create(tmp_path / "host") as host:
        host.shell("zpool create tank /dev/vtbd2 && zfs create tank/home")
        print(host.run(["zfs", "list"]).stdout)

From a shell: `PYTHONPATH=tests python3 -m sandbox.host DIR COMMAND...` boots the host that is
in DIR (made if missing), runs COMMAND in it and shuts it down.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from support.patience import PATIENCE, Patient

from sandbox.rootfs import LACKS, LIBC, LOADS
from sandbox.state import State, create_state

PACKAGE = Path(__file__).resolve().parent
PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "USER": "root",
               "LOGNAME": "root", "SHELL": "/bin/sh", "TZ": "UTC"}
IMAGE_SIZE = 16 << 30

_Input = int | IO[Any] | None


class Host:
    """A machine in a directory. `create` or `attach` boots it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._holder: subprocess.Popen[str] | None = None
        self._init = 0
        self._loop = -1
        self._started: list[subprocess.Popen[Any]] = []

    # -- life --------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, *, root_dataset: str = "",
               hostname: str = "fbsd142.test") -> Host:
        """Make a machine in a directory that does not exist or is empty, and boot it.

        With root_dataset ("zroot/ROOT/default"), / is that dataset instead of UFS.
        """
        directory = Path(directory).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        for name in ("root", "pool", "dev", "lib/sandbox"):
            (directory / name).mkdir(parents=True)
        config = {
            "hostname": hostname, "root_dataset": root_dataset, "store": _choose_store(directory),
            "package": str(PACKAGE), "prefix": sys.base_prefix,
            "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "python": _base_python(), "fast_python": _accessible_python(),
        }
        (directory / "host.json").write_text(json.dumps(config, indent=1))
        create_state(str(directory), {"store": config["store"], "hostname": hostname})
        host = cls(directory)
        host.boot()
        return host

    @classmethod
    def attach(cls, directory: Path) -> Host:
        """Boot a machine that was shut down or lost its power."""
        host = cls(Path(directory).absolute())
        host.boot()
        return host

    def boot(self) -> None:
        """Start it: a new mount table, then what `zfs mount -a` and /etc/fstab mount.

        As after any boot, files (not directories) in /var/run are gone and encryption keys
        are not loaded. Mounts made by hand do not come back.
        """
        if self._holder:
            raise RuntimeError("the host is running")
        command = [sys.executable, "-I", "-S", str(PACKAGE / "holder.py"), str(self.directory)]
        self._holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        text=True, start_new_session=True)
        assert self._holder.stdout
        answer = self._holder.stdout.readline().split()
        if len(answer) != 2:
            self._holder.wait()
            self._holder = None
            raise RuntimeError("the sandbox host did not come up; see its messages above")
        self._init, self._loop = int(answer[0]), int(answer[1])

    def power_cut(self) -> None:
        """End everything in it at once. What is on disk stays: `attach` or `boot` it again."""
        self._stop(signal.SIGKILL)

    def shut_down(self) -> None:
        """End everything in it; leaves no process, mount or loop device behind."""
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if not self._holder:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init, number)
        self._wait_for_holder()
        if self._holder.stdout:
            self._holder.stdout.close()
        self._holder = None
        self._wait_for_loop()

    def _wait_for_holder(self) -> None:
        """Init can only end when all others are gone, for which their parent, us, must wait."""
        assert self._holder
        deadline = time.monotonic() + 30 * PATIENCE
        while self._holder.poll() is None:
            for process in self._started:
                process.poll()
            if time.monotonic() > deadline:
                raise RuntimeError("the sandbox host does not end")
            time.sleep(0.002)

    def _wait_for_loop(self) -> None:
        """The kernel lets go of a dead namespace's mounts a moment after its last process."""
        backing = Path(f"/sys/block/loop{self._loop}/loop/backing_file")
        image = str(self.directory / "pool.btrfs")
        deadline = time.monotonic() + 20 * PATIENCE
        while time.monotonic() < deadline:
            try:
                # The path is as the machine sees it, so it begins with /compat/linux.
                if image not in backing.read_text():
                    return
            except OSError:
                return
            time.sleep(0.003)
        raise RuntimeError(f"loop{self._loop} still holds {image}: is a file of it still open?")

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *unused: object) -> None:
        self.shut_down()

    @property
    def running(self) -> bool:
        """Whether it has been booted and not stopped."""
        return self._holder is not None

    @property
    def root(self) -> Path:
        """The live tree including mounts, as this process reaches it.

        Absolute symlinks in it point into *this* machine: follow them with care. While the
        machine runs only.
        """
        return Path(f"/proc/{self._init}/root")

    @property
    def faithful(self) -> bool:
        """Whether inode numbers, change times and link counts in snapshots are the live ones."""
        config = json.loads((self.directory / "host.json").read_text())
        return bool(config["store"] == "btrfs")

    # -- running programs --------------------------------------------------------------------

    def popen(self, argv: Sequence[str | os.PathLike[str]], *, env: dict[str, str] | None = None,
              cwd: str = "/", user: str | None = None, stdin: _Input = subprocess.DEVNULL,
              stdout: _Input = None, stderr: _Input = None, text: bool = True,
              start_new_session: bool = False, new_group: bool = False) -> subprocess.Popen[Any]:
        """Start a program inside.

        What is returned is the program itself: its `.pid` is the program's, as seen from here,
        so signals and exit status are the real ones. env is added to the machine's own
        environment. With start_new_session and a terminal as stdin, that terminal becomes the
        program's own, so that ^C typed into it interrupts the program.
        """
        if not self._holder:
            raise RuntimeError("the host is not running")
        reader, writer = os.pipe()
        session = "session" if start_new_session else "group" if new_group else "-"
        command = [sys.executable, "-I", "-S", str(PACKAGE / "enter.py"), str(self._init),
                   str(writer), session, user or "", cwd, *(os.fspath(word) for word in argv)]
        try:
            process = Patient(
                command, env={**ENVIRONMENT, **(env or {})}, stdin=stdin, stdout=stdout,
                stderr=stderr, text=text, pass_fds=[writer])
        finally:
            os.close(writer)
        with os.fdopen(reader) as report:
            answer = report.read(100)
        os.waitpid(process.pid, 0)
        if not answer:
            process.returncode = 70
            raise RuntimeError("could not enter the sandbox host; see the messages above")
        process.pid = int(answer)
        self._started = [*(p for p in self._started if p.returncode is None), process]
        return process

    def run(self, argv: Sequence[str | os.PathLike[str]], *, env: dict[str, str] | None = None,
            input: str | bytes | None = None, cwd: str = "/",
            timeout: float = 120, user: str | None = None, text: bool = True,
            check: bool = False, stderr_to_stdout: bool = False
            ) -> subprocess.CompletedProcess[Any]:
        """Run a program inside to its end and return its output."""
        process = self.popen(
            argv, env=env, cwd=cwd, user=user, text=text, new_group=True,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr_to_stdout else subprocess.PIPE)
        with process:
            try:
                output, errors = process.communicate(input, timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        result = subprocess.CompletedProcess(list(argv), process.returncode, output, errors)
        if check:
            result.check_returncode()
        return result

    def shell(self, script: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a script by /bin/sh inside."""
        return self.run(["/bin/sh", "-c", script], **options)

    # -- looking and turning knobs -----------------------------------------------------------

    def commands(self) -> list[list[str]]:
        """Every stand-in that was started since the last `forget_commands`, with arguments.

        System calls that a program made by ctypes are among them: `nmount`, `fstype=zfs`, ...
        """
        lines = (self.directory / "commands.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def forget_commands(self) -> None:
        """Start counting anew."""
        (self.directory / "commands.log").write_text("")

    def violations(self) -> list[str]:
        """What FreeBSD would have refused and Linux did not, such as too long arguments."""
        return (self.directory / "violations.log").read_text().splitlines()

    def kernel(self, *, jailed: bool | None = None, zfs: bool | None = None,
               nullfs: bool | None = None, loadable: bool | None = None) -> None:
        """Put the machine into a jail, or take modules out of its kernel.

        nullfs loads itself at the first mount, unless there is no module to load.
        """
        with State(str(self.directory)) as state:
            for key, value in (("jailed", jailed), ("zfs", zfs), ("nullfs", nullfs),
                               ("loadable", loadable)):
                if value is not None:
                    state.set_meta(key, str(int(value)))

    def nmount(self, there: bool) -> None:
        """Give the host's python ctypes and with it the system calls, as at first, or take it."""
        packages = next((self.root / "usr/local/lib").glob("python*/site-packages"))
        (packages / f"{LIBC}.pth").write_text(LOADS if there else LACKS)

    def calls_by_program(self, wanted: bool = True) -> None:
        """Have programs stand for nmount, unmount and getfsstat, or not, as at first.

        They are in /usr/libexec/syscall, where a test can put wrappers in front of them. They
        are children of who makes the call, and their status is the number of the error.
        """
        path = self.directory / "by_program"
        if wanted:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def file_system(self, node: str, *, answer: str | None = None, owner: int | None = None
                    ) -> None:
        """Say how what is mounted on a directory answers statfs(2), and who mounted it.

        answer: `hangs` (a dead server: mount -v, MNT_WAIT and statfs(2) wait for ever), `fails`
        (EIO: not in `mount -v` nor with MNT_WAIT), or nothing. owner: the number of a user; when
        /etc/passwd has none of it, mount(8) crashes.
        """
        with State(str(self.directory)) as state:
            for column, value in (("answer", answer), ("owner", owner)):
                if value is not None:
                    state.run(f"update mounts set {column} = ? where node = ?", value, node)

    def room(self, dataset: str, there: bool) -> None:
        """Say whether a snapshot of a dataset finds room, which a refreservation can take."""
        with State(str(self.directory)) as state:
            row = state.one("select id from datasets where name = ?", dataset)
            state.run("delete from roomless where dataset = ?", row[0])
            if not there:
                state.run("insert into roomless values (?)", row[0])

    def pool(self, name: str, *, full: bool | None = None, readonly: bool | None = None) -> None:
        """Make a pool full (no snapshot fits any more) or read-only, or undo that.

        zfs(8) refuses then, and the mount table says read-only; files can be written all the
        same. `zpool export` and `zpool import -o readonly=on` do it in earnest.
        """
        with State(str(self.directory)) as state:
            for column, value in (("full", full), ("readonly", readonly)):
                if value is not None:
                    state.run(f"update pools set {column} = ? where name = ?", int(value), name)
            if readonly is not None:
                # As after such an import: every mount of it says so.
                where = ("fstype = 'zfs' and snapshot is null and dataset in (select id from"
                         " datasets where name = ?1 or name like ?1 || '/%')")
                change = "flags || ' read-only'" if readonly else "replace(flags, 'read-only', '')"
                state.run(f"update mounts set flags = {change} where {where}", name)

    def receive_property(self, dataset: str, name: str, value: str) -> None:
        """Set a property as `zfs receive` does: its source is `received`."""
        with State(str(self.directory)) as state:
            state.run("insert or replace into props select id, ?, ?, 'received' from datasets"
                      " where name = ?", name, value, dataset)

    def create_datasets(self, names: Iterable[str], **properties: str) -> None:
        """Create many file systems by one process; parents first, each at most once.

        Property names that are no python names are passed as `**{"org.x:y": "z"}`.
        """
        job = json.dumps({"names": list(names), "properties": properties})
        script = "import sys; sys.path.insert(0, '/compat/sandbox/lib'); import sandbox.bulk"
        config = json.loads((self.directory / "host.json").read_text())
        python = f"/compat/linux{config['fast_python']}"
        result = self.run([python, "-IS", "-c", script], input=job)
        if result.returncode:
            raise RuntimeError(result.stderr)


def _choose_store(directory: Path) -> str:
    """btrfs where it works, else copies; leaves an image made with mkfs.btrfs behind."""
    wanted = os.environ.get("KOPIATOMIC_SANDBOX_STORE", "")
    if wanted == "copies":
        return wanted
    image = directory / "pool.btrfs"
    if wanted or _has_btrfs():
        with open(image, "wb") as file:
            file.truncate(IMAGE_SIZE)
        subprocess.run([_mkfs(), "-q", "-K", "-m", "single", str(image)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return "btrfs"
    return "copies"


def _mkfs() -> str:
    return shutil.which("mkfs.btrfs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or ""


def _has_btrfs() -> bool:
    kinds = Path("/proc/filesystems").read_text().split()
    return bool(_mkfs()) and "btrfs" in kinds and os.path.exists("/dev/loop-control")


def _base_python() -> str:
    """The real interpreter behind a virtual environment."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    candidate = Path(sys.base_prefix) / "bin" / name
    return os.path.realpath(candidate if candidate.exists() else sys.executable)


def _accessible_python() -> str:
    """An interpreter for the stand-ins that every user may execute."""
    for candidate in (_base_python(), "/usr/bin/python3"):
        path = Path(os.path.realpath(candidate))
        if all(p.stat().st_mode & 0o001 for p in (path, *path.parents)) and _recent(path):
            return str(path)
    return _base_python()


def _recent(path: Path) -> bool:
    if path == Path(_base_python()):
        return True
    script = "import sys, sqlite3; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([path, "-IS", "-c", script], check=False).returncode == 0


def main() -> int:
    """Boot the host in a directory, run a command in it, shut it down."""
    if len(sys.argv) < 3:
        print("usage: python3 -m sandbox.host DIRECTORY COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 64
    directory = Path(sys.argv[1])
    exists = (directory / "host.json").exists()
    with Host.attach(directory) if exists else Host.create(directory) as host:
        return int(host.popen(sys.argv[2:], stdin=None).wait())


if __name__ == "__main__":
    sys.exit(main())
