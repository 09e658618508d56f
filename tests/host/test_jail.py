"""Backups made within a jail, of a dataset that it has been given.

The jail has the root of the machine, path=/, so that it needs no system of its own; what it
may do, and what it sees of datasets and mounts, is a jail's. In the sandbox all of the machine is
that jail as long as a program runs in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean
from host.ongoing import meanwhile, outcome

pytestmark = pytest.mark.restic

RESTOMIC = "/usr/local/sbin/restomic"
RIGHTS = ("allow.mount", "allow.mount.zfs", "allow.mount.nullfs", "allow.mount.devfs",
          "enforce_statfs=1")  # fmt: skip
UNAVAILABLE, NOINPUT = 69, 66


def make_jail(machine: Machine, *rights: str, name: str = "ktj") -> None:
    """Make a jail with these rights, and give it kta/jl."""
    words = " ".join(rights)
    shell(machine, f"""
        kldload -n nullfs
        jail -c name={name} path=/ persist {words}
        zfs jail {name} kta/jl
    """)


def inside(machine: Machine, program: str = RESTOMIC) -> str:
    """Return how a program is called within the jail."""
    if machine.is_sandbox or program != RESTOMIC:
        return program
    return str(machine.programs / "restomic")


@pytest.fixture
def jailed(machine: Machine) -> Iterator[Machine]:
    """A machine with a jail that has mounted its dataset, one below that, and one not mounted."""
    shell(machine, f"""
        zfs create kta/home; echo home > {TOP}/home/file
        zfs create -o jailed=on -o mountpoint={TOP}/jl kta/jl
        zfs create kta/jl/below; zfs create -o canmount=noauto kta/jl/noauto
    """)
    make_jail(machine, *RIGHTS)
    shell(machine, f"""
        for each in jl jl/below jl/noauto; do
            jexec ktj zfs mount kta/$each; echo $each > {TOP}/$each/file
        done
        jexec ktj zfs unmount kta/jl/noauto
    """)
    yield machine
    machine.run(["jail", "-r", "ktj"])


def back_up(restic: Repository, *words: str, status: int = 0, program: str = RESTOMIC) -> str:
    """Run a backup in the jail, expect a status and a clean machine; return all that was said."""
    machine = restic.machine
    argv = ["jexec", "ktj", inside(machine, program), *words]
    result = machine.run(argv, env=restic.environment)
    assert result.returncode == status, result.stderr + result.stdout
    clean(machine)
    return result.stdout + result.stderr


def saved(restic: Repository) -> dict[str, str]:
    """Return the files called ``file`` of the newest backup, and what is in them."""
    nodes = [json.loads(line) for line in restic("ls", "latest", "--json").splitlines()[1:]]
    paths = [node["path"] for node in nodes if node["path"].endswith("/file")]
    return {path: restic("dump", "latest", path) for path in paths}


BOTH = {f"{TOP}/jl/file": "jl\n", f"{TOP}/jl/below/file": "jl/below\n"}


def test_a_dataset_and_what_is_below(jailed: Machine, restic: Repository):
    said = back_up(restic, "-r", "kta/jl")
    assert saved(restic) == BOTH
    assert "the backup succeeded," in said
    assert outcome(jailed)["found_in_backup"] == [2, 2]
    rows = {each["name"]: each["kind"] for each in outcome(jailed)["left_out"]}
    assert rows == {"kta/jl/noauto": "not mounted"}
    target = f"{restic.directory}/restored"
    restic("restore", "latest", "--target", target)
    assert jailed.path(f"{target}{TOP}/jl/below/file").read_text() == "jl/below\n"
    # Nothing has changed by the second night.
    again = back_up(restic, "-r", "kta/jl")
    assert re.search(r"^Files: +0 new, +0 changed", again, re.M), again


def test_all_is_all_that_is_its_own(jailed: Machine, restic: Repository):
    back_up(restic, "-a")
    assert saved(restic) == BOTH
    assert "kta/home" not in json.dumps(outcome(jailed)["left_out"])


def test_all_snapshots_are_of_one_moment(jailed: Machine, restic: Repository):
    """A jail can run no channel program."""
    said = back_up(restic, "-r", "kta/jl", "--verbose")
    assert "zfs program" not in said
    (command,) = re.findall(r"^\+ zfs snapshot .*$", said, re.M)
    assert "kta/jl@" in command
    assert "kta/jl/below@" in command


def test_what_is_not_mounted_is_shown_where_it_would_be(jailed: Machine, restic: Repository):
    said = back_up(restic, "kta/jl/noauto", "kta/jl")
    assert saved(restic)[f"{TOP}/jl/noauto/file"] == "jl/noauto\n"
    assert f"shown at {TOP}/jl/noauto: not mounted" in said


def test_what_is_the_hosts(jailed: Machine, restic: Repository):
    said = back_up(restic, "kta", status=NOINPUT)
    assert "kta cannot be backed up: belongs to the host of this jail" in said
    said = back_up(restic, "kta/home", status=NOINPUT)
    assert "no dataset is called 'kta/home'" in said
    said = back_up(restic, f"{TOP}/home", status=NOINPUT)
    assert f"'{TOP}/home' is on kta/home, which this jail has not been given" in said
    back_up(restic, f"{TOP}/jl/below")
    assert saved(restic) == {f"{TOP}/jl/below/file": "jl/below\n"}


@pytest.mark.parametrize("missing", RIGHTS)
def test_a_right_that_is_missing_is_named(jailed: Machine, restic: Repository, missing: str):
    jailed.run(["jail", "-r", "ktj"])
    make_jail(jailed, *(each for each in RIGHTS if each != missing))
    before = jailed.run(["mount", "-p"]).stdout
    for words in (["kta/jl"], ["-n", "kta/jl"]):
        said = back_up(restic, *words, status=UNAVAILABLE)
        assert f"its parameters lack {missing}; add that in jail.conf(5)" in said
        assert said.count("\n") == 1
    assert jailed.run(["mount", "-p"]).stdout == before


def test_what_needs_no_right_does_without(jailed: Machine, restic: Repository):
    back_up(restic, "-r", "kta/jl")
    jailed.run(["jail", "-r", "ktj"])
    make_jail(jailed, "enforce_statfs=1")
    assert "kta/jl/noauto  not mounted" in back_up(restic, "--status", "--full")
    assert back_up(restic, "--sweep") == "nothing was left behind\n"
    assert back_up(restic, "--sweep", "-a") == "nothing was left behind\n"
    assert "2 files" in back_up(restic, "--drill", "2")
    found = json.loads(back_up(restic, "--check", "--json"))["findings"]
    assert found == []


def test_a_jail_without_a_dataset(jailed: Machine, restic: Repository):
    jailed.run(["jail", "-r", "ktj"])
    shell(jailed, f"jail -c name=ktj path=/ persist {' '.join(RIGHTS)}")
    said = back_up(restic, "kta/jl", status=NOINPUT)
    assert "no dataset is called 'kta/jl'; 'zfs list' shows the names there are" in said
    said = back_up(restic, "-a", status=NOINPUT)
    assert said.count("\n") == 1


def test_one_that_the_host_has_not_declared_to_be_a_jails(jailed: Machine, restic: Repository):
    shell(jailed, "jexec ktj zfs unmount kta/jl/below; jexec ktj zfs unmount kta/jl")
    shell(jailed, "zfs set jailed=off kta/jl")
    said = back_up(restic, "kta/jl", status=NOINPUT)
    assert "kta/jl cannot be backed up: belongs to the host of this jail (its prop" in said


def test_the_layout_is_the_hosts(jailed: Machine, restic: Repository):
    said = back_up(restic, "--layout", status=UNAVAILABLE)
    assert "this is a jail, whose pools and disks are its host's" in said
    assert "layout" not in back_up(restic, "-n", "kta/jl")
    back_up(restic, "kta/jl")
    assert outcome(jailed)["layout"] is None


def test_a_directory_alone(jailed: Machine, restic: Repository):
    shell(jailed, f"mkdir {TOP}/jl/letters; echo letter > {TOP}/jl/letters/file")
    back_up(restic, f"{TOP}/jl/letters")
    assert saved(restic) == {f"{TOP}/jl/letters/file": "letter\n"}


def test_a_volume_is_read_on_the_host(jailed: Machine, restic: Repository):
    shell(jailed, "zfs create -V 1m kta/jl/vol")
    reason = "a volume, which can be read on the host of this jail only"
    assert f"kta/jl/vol cannot be backed up: {reason}" in back_up(
        restic, "kta/jl/vol", status=NOINPUT
    )
    said = back_up(restic, "-r", "--volumes", "kta/jl")
    assert reason in said
    assert saved(restic) == BOTH


def test_its_empty_mount_point_means_a_dataset(jailed: Machine, restic: Repository):
    back_up(restic, f"{TOP}/jl/noauto")
    assert saved(restic) == {f"{TOP}/jl/noauto/file": "jl/noauto\n"}


def test_an_existing_snapshot(jailed: Machine, restic: Repository):
    shell(jailed, f"jexec ktj zfs snapshot -r kta/jl@daily-1; echo new > {TOP}/jl/file")
    back_up(restic, "-r", "--snapshot", "daily-*", "kta/jl")
    assert saved(restic) == BOTH
    held = jailed.run(["zfs", "holds", "-H", "kta/jl@daily-1", "kta/jl/below@daily-1"])
    assert held.stdout == ""


def test_one_that_goes_meanwhile(jailed: Machine, restic: Repository):
    program = meanwhile(jailed, ("zfs", "snapshot"), "zfs destroy kta/jl/below")
    said = back_up(restic, "-r", "kta/jl", program=program)
    assert saved(restic) == {f"{TOP}/jl/file": "jl\n"}
    assert re.search(r"^  kta/jl/below +it has gone since the run began$", said, re.M)


def test_a_run_that_was_killed_is_swept_in_the_jail_alone(jailed: Machine, restic: Repository):
    """The host may run a job of the same name, and sees the jail's snapshots."""
    client = "sh -c 'kill -KILL $PPID; exec sleep 600 > /dev/null 2>&1' restic"
    words = ["--plain", "-c", client, "-j", "k", "kta/jl"]
    jailed.run(["jexec", "ktj", inside(jailed), *words], env=restic.environment)
    assert "kta/jl@restomic-" in "".join(listed(jailed))
    swept = jailed.run(["jexec", "ktj", inside(jailed), "--sweep", "-j", "k"])
    assert swept.returncode == 0, swept.stderr
    assert "removed snapshot kta/jl@restomic-" in swept.stdout
    if not jailed.is_sandbox:  # where fstat(1) has other device numbers than stat(2)
        assert "removed process sleep" in swept.stdout
    clean(jailed)


def test_a_snapshot_of_the_hosts_is_none_of_the_jails(jailed: Machine, restic: Repository):
    """And the other way round: of jobs with the same name, each leaves the other's alone."""
    mark = "org.kopiatomic:run"
    shell(jailed, f"""
        zfs snapshot -o {mark}=restomic:default:1 kta/jl@restomic-1
        zfs snapshot -o {mark}=jail.restomic:default:2 kta/jl@restomic-2
    """)
    said = jailed.run(["jexec", "ktj", inside(jailed), "--sweep"]).stdout
    assert said == "removed snapshot kta/jl@restomic-2\n"
    shell(jailed, f"zfs snapshot -o {mark}=jail.restomic:default:2 kta/jl@restomic-2")
    assert jailed.run([RESTOMIC, "--sweep"]).stdout == "removed snapshot kta/jl@restomic-1\n"
    assert listed(jailed) == ["kta/jl@restomic-2"]
    told = jailed.run(["jexec", "ktj", inside(jailed), "--status"]).stdout
    assert "snapshot kta/jl@restomic-2" in told
    assert "restomic-2" not in jailed.run([RESTOMIC, "--status"]).stdout
    shell(jailed, "zfs destroy kta/jl@restomic-2")


def listed(machine: Machine) -> list[str]:
    return machine.run(["zfs", "list", "-Ht", "snapshot", "-o", "name"]).stdout.splitlines()


def test_what_no_job_takes(jailed: Machine, restic: Repository):
    back_up(restic, "kta/jl")
    argv = ["jexec", "ktj", inside(jailed), "--check", "--json"]
    found = json.loads(jailed.run(argv).stdout)["findings"]
    (text,) = [each["text"] for each in found if each["kind"] == "uncovered"]
    assert text.startswith("1 dataset is in no job: kta/jl/below; ")


@pytest.mark.kopia
def test_by_kopia(jailed: Machine, kopia: Repository):
    program = inside(jailed).replace("restomic", "kopiatomic")
    argv = ["jexec", "ktj", program, "-r", "kta/jl"]
    result = jailed.run(argv, env=kopia.environment)
    assert result.returncode == 0, result.stderr + result.stdout
    clean(jailed)
    kopia("restore", f"{TOP}/jl", f"{kopia.directory}/restored")
    found = jailed.path(f"{kopia.directory}/restored/below/file").read_text()
    assert found == "jl/below\n"
