"""What a volume is read from: made right before, destroyed right after."""

import pytest

from kopiatomic.backup import cloning
from kopiatomic.backup.client_runs import VOLUME, Called, ClientRun
from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report
from kopiatomic.backup.selection import Captured
from kopiatomic.backup.work import Failed, Work
from kopiatomic.clients.base import Task
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.state import Place
from kopiatomic.system import machine, volumes
from kopiatomic.system.command import Door
from kopiatomic.system.process import Signals, Streams

STAMP = "restomic-20261127T030000Z-0123456789ab"
NAMES = Names("restomic:default:0123456789ab", STAMP, "/var/run/restomic/default")
CLONE = f"t/{STAMP}.0"
ALONE = "-o com.sun:auto-snapshot=false -o syncoid:sync=false"
OPTIONS = f"-o readonly=on -o volmode=none {ALONE} -o org.kopiatomic:run={NAMES.run}"
MAKE = f"zfs clone {OPTIONS} t/vm/d@{STAMP} {CLONE}"
LIST = "zfs list -Hp -t volume -o name,volsize,volmode,org.freebsd:swap"


@pytest.fixture(autouse=True)
def devices(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "DEVICES", str(tmp_path))
    monkeypatch.setattr(volumes, "SETTLE", 0.0)
    monkeypatch.setattr(volumes, "WAIT", 0.0)
    (tmp_path / "t/vm").mkdir(parents=True)
    return tmp_path


def work_of(devices, *kinds: str, still: bool = False) -> Work:
    """Return the work of a run, of which a client run of each kind is under way."""
    report = Report("restomic", "default", NAMES.run, 0.0)
    volume = Captured("t/vm/d", f"{devices}/t/vm/d", 0, True, still)
    source = f"{devices}/{'t/vm/d' if still else CLONE}"
    runs = [
        ClientRun(VOLUME, "t/vm/d", stream=volume.point, source=source) if kind == VOLUME
        else ClientRun(kind) for kind in kinds
    ]  # fmt: skip
    report.plan = Plan(NAMES, (), (), (), (), (), runs=tuple(runs), volumes=(volume,))
    report.runs = [Called(run) for run in runs]
    task = Task(Job("restomic"), Restic(), Door(), {}, "", str)
    return Work(task, Place("restomic", "default"), NAMES, Signals(), Streams(), report)


def issued(fp):
    return [" ".join(call) for call in fp.calls]


def clone(fp, devices):
    fp.register(MAKE)
    appears = lambda _: (devices / CLONE).write_bytes(b"x" * 4096)  # noqa: E731
    fp.register(f"zfs set volmode=dev {CLONE}", callback=appears)
    fp.register(f"{LIST} {CLONE}", stdout=f"{CLONE}\t4096\tdev\t-\n")


def test_a_clone_for_one_client_run(fp, devices):
    work = work_of(devices, "files", VOLUME)
    clone(fp, devices)
    fp.register(f"zfs destroy {CLONE}")
    files, volume = work.report.runs
    cloning.open_source(work, files)
    cloning.close_source(work, files)
    assert not issued(fp)
    cloning.open_source(work, volume)
    assert (volume.size, list(work.clones)) == (4096, [CLONE])
    volume.saved = True
    cloning.close_source(work, volume)
    assert volume.fingerprint is not None
    assert list(volume.fingerprint.blocks) == [0]
    assert work.clones == {}
    assert issued(fp)[-1] == f"zfs destroy {CLONE}"


def test_one_for_all_client_runs_of_the_volume(fp, devices):
    """For several repositories."""
    work = work_of(devices, VOLUME, "files", VOLUME)
    clone(fp, devices)
    fp.register(f"zfs destroy {CLONE}")
    for called in work.report.runs:
        cloning.open_source(work, called)
        called.saved = True
        cloning.close_source(work, called)
    assert [line.split()[1] for line in issued(fp)] == ["clone", "set", "list", "destroy"]
    assert all(called.size for called in work.report.runs if called.run.kind == VOLUME)


def test_one_that_could_not_be_made_is_made_for_the_next_repository(fp, devices):
    work = work_of(devices, VOLUME, VOLUME)
    fp.register(MAKE, returncode=1, stderr="cannot create: out of space")
    fp.register(f"zfs destroy {CLONE}", returncode=1, stderr="dataset does not exist")
    clone(fp, devices)
    fp.register(f"zfs destroy {CLONE}")
    here, away = work.report.runs
    with pytest.raises(Failed, match="out of space"):
        cloning.open_source(work, here)
    cloning.close_source(work, here)
    cloning.open_source(work, away)
    assert (here.size, away.size) == (None, 4096)
    cloning.close_source(work, away)
    assert work.clones == {}


def test_one_that_is_there_in_part_is_not_taken_for_the_whole(fp, devices):
    work = work_of(devices, VOLUME, VOLUME)
    fp.register(MAKE, returncode=1, stderr="timed out")
    fp.register(f"zfs destroy {CLONE}", returncode=1, stderr="pool I/O is suspended")
    here, away = work.report.runs
    with pytest.raises(Failed, match="timed out"):
        cloning.open_source(work, here)
    with pytest.raises(Failed, match=f"what is left of {CLONE} is in the way"):
        cloning.open_source(work, away)
    assert away.size is None
    assert list(work.clones) == [CLONE]


def test_of_one_that_was_not_saved_nothing_is_noted(fp, devices):
    work = work_of(devices, VOLUME)
    clone(fp, devices)
    fp.register(f"zfs destroy {CLONE}")
    cloning.open_source(work, work.report.runs[0])
    cloning.close_source(work, work.report.runs[0])
    assert work.report.runs[0].fingerprint is None


def test_one_that_cannot_be_read_again_is_told(fp, devices):
    work = work_of(devices, VOLUME)
    clone(fp, devices)
    fp.register(f"zfs destroy {CLONE}")
    cloning.open_source(work, work.report.runs[0])
    (devices / CLONE).unlink()
    work.report.runs[0].saved = True
    cloning.close_source(work, work.report.runs[0])
    assert work.report.notes == [
        "t/vm/d: nothing is noted for a restore drill to compare with: No such file or directory"
    ]
    assert work.clones == {}


def test_on_a_read_only_pool_the_volume_itself_is_read(fp, devices):
    work = work_of(devices, VOLUME, still=True)
    (devices / "t/vm/d").write_bytes(b"x" * 4096)
    fp.register(f"{LIST} t/vm/d", stdout="t/vm/d\t4096\tdefault\t-\n")
    called = work.report.runs[0]
    cloning.open_source(work, called)
    called.saved = True
    cloning.close_source(work, called)
    assert (called.size, work.clones) == (4096, {})
    assert called.fingerprint is not None
    assert len(issued(fp)) == 1


def test_a_refusal_costs_the_client_run_alone_and_is_looked_after(fp, devices):
    work = work_of(devices, VOLUME)
    fp.register(MAKE, returncode=1, stderr=f"cannot create '{CLONE}': out of space\n")
    with pytest.raises(Failed, match=r"it cannot be read: .*out of space") as caught:
        cloning.open_source(work, work.report.runs[0])
    assert caught.value.status == 73
    # It may be there all the same.
    gone = f"cannot open '{CLONE}': dataset does not exist\n"
    fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=gone)
    cloning.close_source(work, work.report.runs[0])
    assert cloning.remove_clones(work) == []
    assert work.report.problems == []


def test_what_stays_is_told_with_the_command(fp, devices):
    work = work_of(devices, VOLUME)
    clone(fp, devices)
    cloning.open_source(work, work.report.runs[0])
    busy = f"cannot destroy '{CLONE}': dataset is busy\n"
    fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=busy, occurrences=4)
    cloning.close_source(work, work.report.runs[0])
    assert list(work.clones) == [CLONE]
    (left,) = cloning.remove_clones(work)
    assert left.name == CLONE
    (problem,) = work.report.problems
    assert problem.startswith(f"the clone {CLONE} cannot be destroyed: ")
    assert problem.endswith("the next run tries again, or: restomic --sweep -j default")
