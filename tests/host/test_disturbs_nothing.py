"""While a backup goes on, and after one was killed, the machine is free to do anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from support import tree
from support.machine import Machine, shell, wait_for

from host.conftest import TOP, Repository, clean, where
from host.ongoing import RUN, backup_goes_on, is_whole, kept_by, ongoing, pictures, started

# What a job for kta/home, kta/base and kta/jails has nothing to do with.
UNRELATED = (
    "umount /kt/usb",
    "zfs unmount kta/src",
    "zfs mount kta/src",
    "zfs unmount -f kta/src",
    "zfs mount kta/src",
    "zfs rename kta/src kta/source",
    "zfs rename kta/source kta/src",
    "zfs set mountpoint=/kt/elsewhere kta/src",
    "zfs inherit mountpoint kta/src",
    "zfs rollback kta/src@before",
    "zfs set readonly=on kta/src",
    "zfs create kta/fresh",
    "zfs destroy kta/fresh",
    "zfs destroy -r kta/src",
    "zpool export ktb",
)

# A jail's end, as jail(8) has it with mount.fstab; its files are in the backup.
JAIL = tuple(f"umount /kt/jail/{name}" for name in ("tmp", "dev", "usr", "bin"))

# What is done to the very datasets that are backed up.
OWN = (
    "zfs unmount kta/home/ben",
    "zfs mount kta/home/ben",
    "zfs rename kta/home/ben kta/home/benjamin",
    "zfs rename kta/home/benjamin kta/home/ben",
    "zfs set mountpoint=/kt/elsewhere kta/home/ben",
    "zfs inherit mountpoint kta/home/ben",
    f"echo later > {TOP}/home/docs/letter.txt; rm {TOP}/home/big",
    "zfs rollback $(zfs list -Ht snapshot -o name kta/home)",
    "zfs unmount kta/home",
    "zfs mount kta/home; zfs mount kta/home/ben; zfs mount 'kta/home/with space'",
    f"umount {TOP}/home/ben",
    "zfs mount kta/home/ben",
)

# The snapshots are in use for as long as the client reads them.
REFUSED = (
    "zfs destroy $(zfs list -Ht snapshot -o name kta/home)",
    "zfs destroy -d $(zfs list -Ht snapshot -o name kta/home)",
    "zfs destroy -r $(zfs list -Ht snapshot -o name kta/home)",
)


@contextmanager
def disk(machine: Machine) -> Iterator[None]:
    """Have a disk with a file system that is not ZFS on /kt/usb."""
    # No such thing is in the sandbox, where a tmpfs stands for it.
    make = "mount -t tmpfs tmpfs /kt/usb"
    if not machine.is_sandbox:
        device = f"/dev/{machine.make_disk(16)}"
        make = f"newfs {device} > /dev/null; mount {device} /kt/usb"
    shell(machine, f"mkdir -p /kt/usb; {make}; echo > /kt/usb/file")
    try:
        yield
    finally:
        machine.run(["/bin/sh", "-c", "umount /kt/usb"])


@pytest.fixture
def busy(filled: Machine) -> Iterator[Machine]:
    """A machine with a disk, another pool and a thin jail, of which all is in use somehow."""
    filled.make_pool("ktb")
    shell(
        filled,
        f"""
        zfs create ktb/d; echo b > /kt/ktb/d/file
        zfs create kta/base; mkdir {TOP}/base/usr {TOP}/base/bin; echo usr > {TOP}/base/usr/file
        zfs create -o mountpoint=/kt/jail kta/jail
        mkdir /kt/jail/usr /kt/jail/bin /kt/jail/dev /kt/jail/tmp; echo conf > /kt/jail/rc.conf
        for each in usr bin; do mount_nullfs -o ro {TOP}/base/$each /kt/jail/$each; done
        mount -t devfs devfs /kt/jail/dev
        mount -t tmpfs tmpfs /kt/jail/tmp
        zfs snapshot kta/src@before
        """,
    )
    with disk(filled):
        try:
            yield filled
        finally:
            for each in JAIL:
                filled.run(["/bin/sh", "-c", each])
            # Exported, the pool would not be destroyed in the end.
            filled.run(["/bin/sh", "-c", f"zpool import{where(filled)} ktb"])


def tried(machine: Machine, scripts: Sequence[str], *, good: bool = True) -> None:
    """Assert that each of some commands succeeds, or that each is refused as busy."""
    wrong = []
    for each in scripts:
        result = machine.run(["/bin/sh", "-ec", each])
        said = result.stderr.strip()
        if (result.returncode == 0) != good or (not good and "dataset is busy" not in said):
            wrong.append((each, result.returncode, said))
    assert wrong == []


JOB = ("-r", "kta/home", "kta/base", "kta/jail")
POINTS = (f"{TOP}/home", f"{TOP}/base")


def left_out_of(said: str) -> set[str]:
    """Return what the report of a first backup says was left out, or is in it elsewhere."""
    titles = ("Left out:\n", "In the backup at another place:\n")
    sections = (said.partition(title)[2].split("\n\n")[0] for title in titles)
    return {line.split()[0] for section in sections for line in section.splitlines() if line}


@pytest.mark.restic
def test_everything_else_can_go_while_restic_works(busy: Machine, restic: Repository):
    before = pictures(busy, *POINTS, **kept_by(restic))
    with backup_goes_on(restic, *JOB) as run:
        tried(busy, UNRELATED)
        tried(busy, JAIL)
    is_whole(restic, before)
    assert restic("dump", "latest", "/kt/jail/rc.conf") == "conf\n"
    # Only the mounts of the jail were left out, as on any night.
    assert left_out_of(run.said) == {f"/kt/jail/{name}" for name in ("usr", "bin", "tmp")}
    clean(busy)


@pytest.mark.restic
def test_so_can_the_datasets_that_are_backed_up(filled: Machine, restic: Repository):
    before = pictures(filled, f"{TOP}/home", **kept_by(restic))
    with backup_goes_on(restic, "-r", "kta/home") as run:
        tried(filled, OWN)
    is_whole(restic, before)
    assert "NOT ALL IS WELL" not in run.said
    assert left_out_of(run.said) == set()
    clean(filled)


@pytest.mark.kopia
def test_everything_can_go_while_kopia_works(busy: Machine, kopia: Repository):
    before = tree.picture(busy.path(f"{TOP}/home"), **kept_by(kopia))
    with backup_goes_on(kopia, "-r", "kta/home"):
        tried(busy, UNRELATED)
        tried(busy, JAIL)
        tried(busy, OWN[:6])
    clean(busy)
    out = f"{kopia.directory}/out"
    (snapshot,) = json.loads(kopia("snapshot", "list", "--json"))
    kopia("snapshot", "restore", snapshot["id"], out)
    assert tree.picture(busy.path(out), **kept_by(kopia)) == before


@pytest.mark.restic
def test_what_is_done_to_them_in_the_end_is_told_and_costs_nothing(
    filled: Machine, restic: Repository
):
    """One is gone from its mount point, one has another name, when the run ends."""
    before = pictures(filled, f"{TOP}/home", f"{TOP}/src", **kept_by(restic))
    with backup_goes_on(restic, "-r", "kta/home", "kta/src") as run:
        tried(filled, ["zfs unmount kta/home/ben", "zfs rename -u kta/src kta/source"])
    is_whole(restic, before)
    assert "its snapshot was kta/source@restomic-" in run.said
    assert "the backup succeeded," in run.said
    assert "NOT ALL IS WELL" not in run.said
    clean(filled)


@pytest.mark.parametrize(
    ("change", "removed"),
    [
        ("zfs rename kta/own kta/o2", True),  # made anew, but that is another directory
        ("zfs rename -u kta/own kta/o2", False),
        ("zfs set mountpoint=/kt/other kta/own", False),
        ("zfs rename kta/src kta/source", True),
        ("zfs set mountpoint=/kt/other kta/src", True),
    ],
)
def test_a_mount_point_that_is_removed_is_told(filled: Machine, change: str, removed: bool):
    """They lie on / and on kta, which the view shows live: zfs(8) removes some of them."""
    shell(filled, "zfs create -o mountpoint=/kt/own kta/own; echo > /kt/own/main.c")
    places = {"kta/own": "/kt/own", "kta/src": f"{TOP}/src"}
    moved = "kta/own" if "kta/own" in change else "kta/src"
    client = f"find {' '.join(places.values())} > /kt/seen; true"
    with ongoing(filled, *places, client=client, status=65 * removed) as run:
        tried(filled, [change])
    seen = filled.path("/kt/seen").read_text()
    assert {name for name, point in places.items() if f"{point}/main.c" not in seen} == (
        {moved} if removed else set()
    )
    assert ("the backup is INCOMPLETE" in run.said) == removed
    told = re.findall(r"^  ! (\S+) .* is not, or not whole, in the backup", run.said, re.M)
    assert told == ([moved] if removed else [])
    clean(filled)


@pytest.mark.parametrize("killed", ["not killed", "killed", "killed with its client"])
def test_the_snapshots_cannot_be_pulled_away(filled: Machine, killed: str):
    listing = f"find {TOP}/home | sort > /kt/seen"
    with started(filled, "-r", "kta/home", client=listing) as run:
        run.wait_for_client()
        if killed != "not killed":
            run.kill(client=killed == "killed with its client")
        tried(filled, REFUSED, good=False)
        if killed == "not killed":
            run.let_go()
            assert run.process.returncode == 0, run.said
            seen = filled.path("/kt/seen").read_text().splitlines()
            assert {f"{TOP}/home/docs/letter.txt", f"{TOP}/home/ben/big"} <= set(seen)
    result = filled.run(["/usr/local/sbin/restomic", "--sweep"])
    assert result.returncode == 0, result.stderr
    clean(filled)


@pytest.mark.parametrize("how", ["sweep", "the next run"])
@pytest.mark.parametrize("client", ["goes on", "is dead"])
def test_what_a_killed_run_leaves_is_in_nobodys_way(busy: Machine, client: str, how: str):
    with started(busy, *JOB) as run:
        run.wait_for_client()
        run.kill(client=client == "is dead")
        tried(busy, UNRELATED)
        tried(busy, JAIL)
        tried(busy, OWN)
        if how == "sweep":
            result = busy.run(["/usr/local/sbin/restomic", "--sweep"])
            prefix = "removed "
        else:
            result = busy.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", *JOB])
            prefix = "  "
    assert result.returncode == 0, result.stderr + result.stdout
    clean(busy)
    assert f"{prefix}snapshot kta/home@restomic-" in result.stdout
    assert f"{prefix}mount {RUN}/default/view\n" in result.stdout
    named = re.findall(rf"{prefix}process .* \((\d+)\)", result.stdout)
    assert (run.client in named) == (client == "goes on"), result.stdout
    # And what was there before is there still.
    tried(busy, [each for each in OWN if "rollback" not in each])
    assert busy.run(["/usr/local/sbin/restomic", "--sweep"]).stdout == "nothing was left behind\n"


# Which live mounts there are


# Issued by hand from the manual: where the client and its libraries have their things.
SYSTEM = (
    "/bin /sbin /lib /libexec /etc /root /usr /usr/bin /usr/sbin /usr/lib /usr/local"
    " /usr/local/bin /usr/local/sbin /var /var/db /var/run /tmp /var/tmp"
).split()


def mount_points(machine: Machine) -> list[str]:
    """Return what is mounted where, by ``mount -p``; the tests make no blanks in it."""
    lines = machine.run(["mount", "-p"]).stdout.splitlines()
    return [line.split()[1] for line in lines if len(line.split()) > 2]


def point_of(path: str, points: Sequence[str]) -> str:
    """Return the mount point that a path lies on."""
    while path not in points:
        path = path.rpartition("/")[0] or "/"
    return path


def test_the_view_has_what_the_client_needs_and_no_more(busy: Machine):
    points = mount_points(busy)
    wanted = {point_of(path, points) for path in [*SYSTEM, "/kt/slow"]}
    # What leads to the chosen mount point.
    wanted |= {TOP, "/dev", f"{TOP}/home", "/kt/usb"}
    if busy.is_sandbox:
        wanted.add("/compat/linux")  # where its programs lie
    view = f"{RUN}/default/view"
    with ongoing(busy, "kta/home", "--live", "/kt/usb"):
        ours = [each for each in mount_points(busy) if each.startswith(RUN)]
        told = busy.run(["mount", "-v"]).stdout
        pinned = busy.run(["umount", "/kt/usb"])
    # All else is closed, and nothing is mounted for what lies below that.
    others = [point for point in points if point.startswith("/") and point not in wanted]
    others = [point for point in others if not point.startswith("/dev/")]
    tops = {point for point in others if not any(point.startswith(f"{p}/") for p in others)}
    tops -= {point for point in tops if point.startswith(f"{TOP}/home/")}  # in the snapshot
    expected = {view + ("" if point == "/" else point) for point in wanted | tops}
    assert sorted(ours) == sorted([*expected, f"{RUN}/default/hold/0"])
    empty = rf"{RUN}/default/gap/closed"
    closed = re.findall(rf"^{empty} on {view}(\S+) \(nullfs, .*read-only", told, re.M)
    assert set(closed) == tops
    assert f"{TOP}/src" in tops
    # The snapshot itself, read-only, and of the rest each once.
    assert re.search(
        rf"^kta/home@restomic-\S+ on {RUN}/default/hold/0 \(zfs, .*read-only", told, re.M
    )
    held = f"{RUN}/default/hold/0"
    assert re.search(rf"^{held} on {view}{TOP}/home \(nullfs, .*read-only", told, re.M)
    assert re.search(rf"^devfs on {view}/dev \(devfs", told, re.M)
    # What is in the view stays: the test would not notice otherwise that nothing is.
    assert "Device busy" in pinned.stderr
    clean(busy)


def test_what_is_left_out_can_be_written_nowhere(busy: Machine):
    """Below a mount is a directory of the file system that it lies on, hidden and writable."""
    # Not by their whole names, which would bring them into the view.
    first = "cd /kt; for each in usb ktb; do touch $each/made; done"
    with ongoing(busy, "kta/home", first=f"({first}) 2>&1") as run:
        tried(busy, ["touch /kt/usb/live", "umount /kt/usb"])
        hidden = busy.run(["ls", "-A", "/kt/usb"]).stdout
    assert hidden == ""
    assert run.said.count("Read-only file system") == 2
    assert "made" not in busy.run(["ls", "-A", "/kt/ktb"]).stdout
    clean(busy)


def test_a_dry_run_prints_that_view(busy: Machine):
    result = busy.run(["/usr/local/sbin/restomic", "-n", "--plain", "-c", "true", "kta/home"])
    printed = re.findall(rf" {RUN}/default/(view\S*|hold/0)$", result.stdout, re.M)
    with ongoing(busy, "kta/home"):
        made = [each[len(f"{RUN}/default/") :] for each in mount_points(busy) if RUN in each]
    assert sorted(printed) == sorted(made), result.stdout


def test_they_are_not_shown_to_who_does_not_ask(filled: Machine):
    """df(1) and mount(8) without -v are spared our mounts, as those of .zfs are."""
    with ongoing(filled, "kta/src"):
        assert f"{RUN}/default/hold" not in filled.run(["mount"]).stdout
        assert f"{RUN}/default/hold" in filled.run(["mount", "-v"]).stdout


def test_live_mounts_keep_their_flags(busy: Machine):
    shell(busy, "zfs set setuid=off kta; zfs set exec=off kta")
    with ongoing(busy, "kta/home", "--live", f"{TOP}/src"):
        lines = busy.run(["mount", "-v"]).stdout.splitlines()
    (live,) = [line for line in lines if line.startswith(f"{TOP}/src on {RUN}")]
    assert "nosuid" in live
    assert "noexec" in live


def test_who_stays_in_the_view_is_ended_and_who_is_elsewhere_is_not(filled: Machine):
    """A program of the live system that has the same files open goes on."""
    keep = filled.popen(["/bin/sh", "-c", f"exec sleep 300 < {TOP}/src/main.c"])
    try:
        first = f"sleep 300 < {TOP}/src/main.c > /dev/null 2>&1 &"
        with ongoing(filled, "kta/src", first=first) as run:
            pass
        assert "ended what the client left running: sleep" in run.said
        assert keep.poll() is None
    finally:
        keep.kill()
        keep.wait()
    clean(filled)


def test_who_looks_into_the_view_is_not_ended(filled: Machine):
    """An administrator's shell in there loses its directory, and nothing else."""
    with ongoing(filled, "kta/src") as run:
        view = f"{RUN}/default/view{TOP}/src"
        there = filled.path("/kt/looks")
        script = f"cd {view} && exec sleep 300 < main.c > /kt/looks"
        looks = filled.popen(["/bin/sh", "-c", script])
        try:
            wait_for(there.exists, 60)
            run.let_go()
            assert looks.poll() is None
        finally:
            looks.kill()
            looks.wait()
            there.unlink()
    assert "ended what" not in run.said
    clean(filled)
