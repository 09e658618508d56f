"""What a run costs of our own: whole runs with programs that cost nothing, by number of datasets.

    python3 tests/faults/bench.py

Each size has a process of its own. The programs are replaced by answers made beforehand, so
that time and memory are kopiatomic's; how many would have been started is counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

# No module more than kopiatomic needs: what is measured is this process.
SOURCE = os.path.realpath(f"{__file__}/../../../src")
SIZES = (1, 10, 100, 1000, 5000, 10000)

# What a plan of 10,000 datasets may take, and what we may hold while the client runs.
MOST_SECONDS, MOST_MEMORY, MOST_MEANWHILE = 1.0, 60.0, 20.0


def megabytes(field: str) -> float:
    """Return a figure of this process's memory, which Linux gives in kB."""
    (line,) = (line for line in read("/proc/self/status").splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def prepare(count: int, directory: str) -> None:
    """Write down what zfs(8) and mount(8) answer on a machine with so many datasets.

    Not in the process that is measured, whose memory it would be.
    """
    names = [f"tank/group{number // 100:03}/data{number:05}" for number in range(count)]
    listing = "".join(f"{name}\tfilesystem\tyes\ton\toff\t-\t-\n" for name in names)
    entries = [{"special": "/dev/ada0p2", "node": "/", "fstype": "ufs", "opts": ["local"]},
               {"special": "devfs", "node": "/dev", "fstype": "devfs"}]  # fmt: skip
    entries += [
        {"special": name, "node": f"/{name}", "fstype": "zfs", "opts": ["local"]} for name in names
    ]
    short = "".join(f"destroy\t{name}@%s\n" for name in names)
    write(f"{directory}/zfs-list", listing)
    write(f"{directory}/zfs-destroy", short)
    write(f"{directory}/mount", json.dumps({"mount": {"mounted": entries}}))
    view = f"{directory}/run/restomic/default/view"
    entries += [
        {"special": f"/{name}/.zfs/snapshot/%s", "node": f"{view}/{name}", "fstype": "nullfs"}
        for name in names
    ]
    write(f"{directory}/mount-after", json.dumps({"mount": {"mounted": entries}}))


def measure(count: int, answers: str) -> dict[str, float]:
    """Do one run of so many datasets and return what it took."""
    import contextlib
    import ctypes
    import itertools
    import time

    from kopiatomic import state
    from kopiatomic.backup import routine, view
    from kopiatomic.clients import make_ready
    from kopiatomic.job import Job
    from kopiatomic.system import command, nullfs, process

    started = 0
    meanwhile = 0.0

    class Free(command.Door):
        def run(self, argv, **options):
            nonlocal started
            started += 1
            out = ""
            if argv[:2] == ("zfs", "list"):
                out = read(f"{answers}/zfs-list")
            if argv[0] == "mount" and "--libxo" in argv:
                out = read(f"{answers}/mount-after" if meanwhile else f"{answers}/mount")
            if "-nvp" in argv:
                short = argv[-1].partition("@")[2]
                out = read(f"{answers}/zfs-destroy").replace("%s", short)
            if argv[:2] == ["zfs", "program"]:
                out = json.dumps({"return": count})
            return command.Result(tuple(argv), 0, out, "")

    def run_client(*_: object) -> process.Ended:
        nonlocal started, meanwhile
        started += 1
        meanwhile = megabytes("VmRSS")
        return process.Ended(0, 0.0)

    class Nmount:
        """The system call, which costs nothing; what it takes to call it is ours."""

        argtypes: object = None

        def __call__(self, *_: object) -> int:
            return 0

    @contextlib.contextmanager
    def standing_in(path: str):
        """Open as many directories as the real one, since these there are not; look as often."""
        with real("/." * path.count("/")) as (here, look):
            yield here, lambda: (look(), next(looks))

    looks, real, way_to = itertools.count(), view.standing_in, view.way_to

    planned: list[float] = []
    draw = routine.draw_plan

    def draw_plan(*words, **options):
        began = time.process_time()
        try:
            return draw(*words, **options)
        finally:
            planned.append(time.process_time() - began)

    os.makedirs(f"{answers}/run", exist_ok=True)
    state.RUN_ROOT, state.STATE_DIRECTORY = f"{answers}/run", f"{answers}/db"
    process.run, routine.draw_plan = run_client, draw_plan
    ctypes.CDLL.nmount, view.standing_in = Nmount(), standing_in
    view.way_to = lambda path: way_to("/." * path.count("/"))
    job = Job("restomic", everything=True, plain=True, command=("/bin/true",))
    before = megabytes("VmRSS")
    began = time.process_time()
    door = Free(nmount=nullfs.find_nmount())
    task = make_ready(job, door, {"HOME": "/nonexistent", "TMPDIR": "/tmp"})
    report = routine.run(task, process.Streams())
    seconds = time.process_time() - began
    assert report.status == 0, report.problems
    assert len(report.plan.captured) == count
    return {"count": count, "started": started, "seconds": seconds, "plan": planned[0],
            "peak": megabytes("VmHWM"), "meanwhile": meanwhile, "before": before}  # fmt: skip


def fit(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return slope, intercept and R squared of the straight line nearest to the points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    start = mean_y - slope * mean_x
    total = sum((y - mean_y) ** 2 for _, y in points)
    off = sum((y - start - slope * x) ** 2 for x, y in points)
    return slope, start, 1 - off / total if total else 1.0


def main() -> int:
    """Measure each size in a process of its own and print how it grows."""
    import tempfile

    if len(sys.argv) > 1:
        sys.path.insert(0, SOURCE)
        print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
        return 0
    rows = []
    print("datasets  processes  of our own  a dataset      plan      peak  during the backup")
    for count in SIZES:
        with tempfile.TemporaryDirectory() as directory:
            prepare(count, directory)
            argv = [sys.executable, "-I", __file__, str(count), directory]
            # The first run makes the history that all later ones read, and does not count.
            _, *tries = [
                json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
                for _ in range(4)
            ]
        row = min(tries, key=lambda each: each["seconds"])
        rows.append(row)
        print(f"{count:8} {row['started']:10.0f} {row['seconds'] * 1000:8.1f} ms"
              f" {row['seconds'] / count * 1e6:7.0f} us {row['plan'] * 1000:6.0f} ms"
              f" {row['peak']:6.1f} MB {row['meanwhile']:6.1f} MB")  # fmt: skip
    print()
    for key, name, unit, scale in (
        ("started", "processes", "", 1.0),
        ("seconds", "time", " us", 1e6),
        ("peak", "peak", " kB", 1e3),
    ):
        slope, start, straight = fit([(row["count"], row[key] * scale) for row in rows])
        print(f"{name}: {start:.0f}{unit} + {slope:.3g}{unit} a dataset, R^2 = {straight:.4f}")
    last = rows[-1]
    wrong = []
    if last["plan"] > MOST_SECONDS or last["seconds"] - last["plan"] > 60:
        wrong.append(f"a plan of {last['count']} took {last['plan']:.2f} s")
    if last["peak"] > MOST_MEMORY:
        wrong.append(f"a run of {last['count']} took {last['peak']:.0f} MB")
    for row in rows:
        if row["meanwhile"] > MOST_MEANWHILE and row["count"] <= 1000:
            wrong.append(f"{row['meanwhile']:.0f} MB during a backup of {row['count']}")
    print("\n".join(f"TOO MUCH: {each}" for each in wrong) or "all within what is asked")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
