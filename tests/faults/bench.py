"""What a run costs of our own: whole runs with programs that cost nothing, by number of datasets.

    python3 tests/faults/bench.py

Each size has a process of its own, with no module more than kopiatomic needs. zfs(8), restic
and FreeBSD's C library are replaced by answers made beforehand, so that time and memory are
kopiatomic's; how many programs would be started, and system calls made, is counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TESTS = os.path.realpath(f"{__file__}/../..")
SOURCE = os.path.realpath(f"{TESTS}/../src")
SIZES = (1, 10, 100, 1000, 5000, 10000)

# Directories made and removed are the kernel's work as well, and cost least in memory.
MEMORY = "/dev/shm"

HEADS = ("datasets", "programs", "of them for the proof", "system calls", "our own time",
         "a dataset", "of it, the plan", "peak memory", "while the client runs")  # fmt: skip

# What a run of 10,000 datasets may take to plan, and what may be held while the client runs.
MOST_SECONDS, MOST_MEANWHILE = 1.0, 40.0

# restomic until the first command, zfs(8) that is: how many modules there are by then.
START = """
import os, sys
sys.path.insert(0, sys.argv[1])
exec(sys.argv.pop(2))
sys.argv = ["restomic", "-a", "-c", sys.argv[2] + "/restic"]
from kopiatomic import cli, state
from kopiatomic.system import command
state.RUN_ROOT, state.STATE_DIRECTORY = sys.argv[-1][:-7] + "/run", sys.argv[-1][:-7] + "/db"
os.geteuid = lambda: 0
def run(door, argv, **options):
    if argv[0] == "zfs":
        os.write(1, str(len(sys.modules)).encode())
        os._exit(0)
    return command.Result(argv, 0, '{"mount":{"mounted":[]}}' if argv[0] == "mount" else "0", "")
command.Door.run = run
cli.restomic()
"""
NOTHING = "import sys; print(len(sys.modules))"


def megabytes(field: str) -> float:
    """Return a figure of this process's memory, which Linux gives in kB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))


def prepare(count: int, directory: str) -> None:
    """Write down what is answered on a machine with so many datasets."""
    sys.path[:0] = [TESTS, SOURCE]
    from support.libc import mounted

    def write(name: str, *parts: str | bytes) -> None:
        with open(f"{directory}/{name}", "wb") as file:
            file.writelines(part.encode() if isinstance(part, str) else part for part in parts)

    names = [f"tank/group{number // 100:03}/data{number:05}" for number in range(count)]
    write("list", *(f"{name}\tfilesystem\tyes\ton\toff\t-\t/x\t-\n" for name in names))
    # It says of each mount that it is number 1: see Library.
    table = [("/dev/ada0p2", "/", "ufs"), ("devfs", "/dev", "devfs")]
    table += [(name, f"/{name}", "zfs") for name in names]
    here = f"{directory}/run/restomic/default"
    after = [*table, ("/", f"{here}/view", "nullfs"), ("devfs", f"{here}/view/dev", "devfs")]
    for number, name in enumerate(names):
        after.append((f"{name}@restomic", f"{here}/hold/{number}", "zfs"))
        after.append((f"{here}/hold/{number}", f"{here}/view/{name}", "nullfs"))
    for name, rows in (("table", table), ("table-after", after)):
        write(name, *(bytes(mounted(*map(str.encode, row), (1, 0))) for row in rows))
    write("backup", "Files: 1 new, 0 changed, 0 unmodified\nsnapshot 0123456789 saved\n")
    snapshot = {"struct_type": "snapshot", "id": "0123456789" * 6, "time": "2026-01-01T00:00:00Z",
                "paths": [f"/{name}" for name in names]}  # fmt: skip
    nodes = [
        {"name": "x", "type": kind, "path": f"/{name}{rest}", "uid": 0, "gid": 0, "mode": 420,
         "mtime": "2026-01-01T00:00:00Z", "inode": 34, "struct_type": "node"}
        for name in names for kind, rest in (("dir", ""), ("file", "/file"))
    ]  # fmt: skip
    write("ls", *(json.dumps(each) + "\n" for each in (snapshot, *nodes)))
    os.symlink("/bin/true", f"{directory}/restic")
    for name in ("run", "home"):
        os.mkdir(f"{directory}/{name}")


class Library:
    """FreeBSD's C library, of which the calls cost nothing; what it takes to call it is ours."""

    def __init__(self, answers: str) -> None:
        self.answers, self.calls, self.made, self.table = answers, 0, 0, "table"

    def nmount(self, *_: object) -> int:
        self.calls, self.made, self.table = self.calls + 1, 1, "table-after"
        return 0

    def unmount(self, *_: object) -> int:
        self.calls += 1
        return 0

    def getfsstat(self, buffer, *_: object) -> int:
        self.calls += 1
        with open(f"{self.answers}/{self.table}", "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size if buffer is None else file.readinto(buffer)
        return size // 2344

    def fstatfs(self, _descriptor: int, buffer) -> int:
        """Say of the place of a mount that it is number 1 once that is made; 0 before."""
        self.calls += 1
        buffer[192], buffer[296] = self.made, b"@"
        return 0

    def sysctlbyname(self, *_: object) -> int:
        self.calls += 1
        return 0


def measure(count: int, answers: str) -> dict[str, float]:
    """Do one run of so many datasets and return what it took."""
    import contextlib
    import ctypes

    from kopiatomic import state
    from kopiatomic.backup import routine, takedown, view
    from kopiatomic.clients import make_ready
    from kopiatomic.job import Job
    from kopiatomic.system import command, kernel, process

    library = Library(answers)
    real, walk, draw, mount_on = view.standing_in, view.walk, routine.draw, view.mount_on
    took: dict[str, float] = {"count": count, "started": 0, "asked": 0}

    class Free(command.Door):
        """Starts nothing but a cat(1) that prints what the client would."""

        def run(self, argv, **_: object):
            took["started"] += 1
            out = '{"return":{}}'
            if argv[:2] == ("zfs", "list"):
                with open(f"{answers}/list") as file:
                    out = file.read()
            return command.Result(tuple(argv), 0, out, "")

        def start(self, argv, *, root=None, **options):
            took["started"] += 1
            took["asked"] += root is None
            took.setdefault("meanwhile", megabytes("VmRSS"))
            return super().start(["/bin/cat", f"{answers}/{argv[1]}"], **options)

    @contextlib.contextmanager
    def standing_in(path: str):
        """Open as many directories as the real one, since these there are not."""
        library.made = 0
        with real("/." * path.count("/")) as found:
            yield found

    def draw_plan(*words):
        began = time.process_time()
        drawing = draw(*words)
        took["plan"] = time.process_time() - began
        return drawing

    state.RUN_ROOT, state.STATE_DIRECTORY = f"{answers}/run", f"{answers}/db"
    routine.draw, view.standing_in = draw_plan, standing_in
    view.walk = lambda path, opened: walk("/." * path.count("/"), opened)
    takedown.mount_on = lambda kernel, path: mount_on(kernel, "/." * path.count("/"))
    view.mount_on = takedown.mount_on
    job = Job("restomic", everything=True, command=(f"{answers}/restic",))
    environment = {"HOME": f"{answers}/home", "RESTIC_REPOSITORY": "sftp:vault:/srv/restic"}
    began = time.process_time()
    task = make_ready(job, Free(kernel=kernel.Kernel(library, ctypes)), environment)
    report = routine.run(task, process.Streams(output=None, messages=None))
    took["seconds"] = time.process_time() - began
    assert report.status == 0, report.problems
    assert [run.proof for run in report.runs] == [(count, count)]
    return took | {"calls": library.calls, "peak": megabytes("VmHWM")}


def look(foreign: int, directory: str) -> list[str]:
    """Return what --status costs with so many snapshots of others: at once, and once more.

    Each look: how many programs it starts, for how many snapshots these answer, and of how
    many of them a property is asked, which is what takes zfs(8) its time.
    """
    from kopiatomic import state
    from kopiatomic.monitoring import status
    from kopiatomic.system import command

    listing = "".join(
        f"tank/data{number % 200:03}@autosnap_{number // 200:03}\n" for number in range(foreign)
    )
    asked = {"programs": 0, "snapshots": 0, "properties": 0}

    class Counting(command.Door):
        """Answers as a machine does that has nothing but these snapshots."""

        def run(self, argv, **_: object):
            asked["programs"] += 1
            out = '{"mount":{"mounted":[]}}' if argv[0] == "mount" else "tank\toff\tONLINE\n"
            if argv[0] == "zfs":
                assert argv[1] in ("list", "get"), argv
                asked["snapshots"] += foreign
                asked["properties"] += foreign if argv[1] == "get" else 0
                out = listing if argv[1] == "list" else ""
            return command.Result(tuple(argv), 0, out, "")

    state.RUN_ROOT, state.STATE_DIRECTORY = f"{directory}/run", f"{directory}/db"
    looks = []
    for _ in range(2):
        asked.update(dict.fromkeys(asked, 0))
        began = time.process_time()
        status.observe(Counting(), "restomic", None, time.time())
        seconds = time.process_time() - began
        looks += [str(each) for each in asked.values()] + [f"{seconds * 1000:.1f} ms"]
    return looks


def show_looks() -> bool:
    """Print what --status costs by the number of foreign snapshots; say whether it is the same."""
    figures = ("programs", "snapshots listed", "properties asked", "our own time")
    heads = [f"{which}: {each}" for which in ("first after a boot", "then") for each in figures]
    heads = ["foreign snapshots", *heads]
    print(f"\n| {' | '.join(heads)} |\n|{'---:|' * len(heads)}")
    rows: list[list[str]] = []
    for foreign in (0, 1000, 11000):
        with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
            os.mkdir(f"{directory}/run")
            rows.append(look(foreign, directory))
        print(f"| {foreign:,} | {' | '.join(rows[-1])} |", flush=True)
    return all(row[4:7] == ["2", "0", "0"] for row in rows)


def python(*words: str) -> tuple[str, float]:
    """Run python and return what it printed and how long it took, in seconds."""
    began = time.perf_counter()
    argv = [sys.executable, "-I", *words]
    text = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True).stdout
    return text, time.perf_counter() - began


def row_of(count: int) -> dict[str, float]:
    """Return the best of three runs of so many datasets."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        prepare(count, directory)
        # The first run makes the history that all later ones read, and does not count.
        _, *tries = [json.loads(python(__file__, str(count), directory)[0]) for _ in range(4)]
    return min(tries, key=lambda each: each["seconds"])


def as_installed() -> str:
    """Return what the installed program does before it imports anything of its own."""
    with open(f"{SOURCE}/../files/executable.in") as file:
        head = file.read().partition("\nfrom kopiatomic")[0]
    return "\n".join(line for line in head.splitlines() if "sys.path" not in line)


def start() -> str:
    """Say what it takes until the first command, against a python that does nothing."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        prepare(1, directory)
        begins = as_installed()
        # Taken in turn, so that what else the machine does weighs on both.
        pairs = [
            (python("-c", START, SOURCE, begins, directory), python("-c", NOTHING))
            for _ in range(21)
        ]
    ours, nothing = (
        f"{tries[-1][0].strip()} modules, {statistics.median(each[1] for each in tries) * 1000:.0f}"
        for tries in zip(*pairs, strict=True)
    )
    return f"until the first command: {ours} ms; python -I that does nothing: {nothing} ms"


def main() -> int:
    """Measure each size in a process of its own and print how it grows."""
    if len(sys.argv) > 1:
        sys.path.insert(0, SOURCE)
        exec(as_installed())
        print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
        return 0
    print(f"| {' | '.join(HEADS)} |\n|{'---:|' * len(HEADS)}")
    for count in SIZES:
        row = row_of(count)
        cells = (
            f"{count:,}", row["started"], row["asked"], f"{row['calls']:,}",
            f"{row['seconds'] * 1000:,.0f} ms", f"{row['seconds'] / count * 1e6:,.0f} us",
            f"{row['plan'] * 1000:.0f} ms", f"{row['peak']:.0f} MB", f"{row['meanwhile']:.0f} MB",
        )  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    sys.path.insert(0, SOURCE)
    same = show_looks()
    print(f"\n{start()}")
    if not same:
        print("--status asks for more where others keep snapshots")
        return 1
    if row["plan"] > MOST_SECONDS or row["meanwhile"] > MOST_MEANWHILE:
        print(f"TOO MUCH for {count:,} datasets")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
