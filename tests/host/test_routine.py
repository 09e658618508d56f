"""The routine as such, with a client that tells what it sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from support import tree
from support.machine import BASE, Machine, shell, wait_for

from host.conftest import TOP, clean, leave_pool_no_room

SHOW = "/bin/ls -R"


def run(machine: Machine, *words: str, status: int = 0, program: str = "restomic") -> str:
    """Run a plain job, expect its status and a clean machine; return its output."""
    result = machine.run([f"/usr/local/sbin/{program}", "--plain", *words])
    assert result.returncode == status, result.stdout + result.stderr
    clean(machine)
    return result.stdout + result.stderr


def script(machine: Machine, text: str, name: str = "/kt/client") -> str:
    """Write an executable sh script on the machine."""
    path = machine.path(name)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return name


def witness(machine: Machine) -> dict[str, tuple[object, ...]]:
    """Return what must not change: everything on the live datasets."""
    return tree.picture(machine.path(TOP))


class TestView:
    def test_frozen_is_frozen_and_live_is_live(self, filled: Machine):
        change = f"echo late >> {TOP}/src/main.c; echo late >> {TOP}/home/big; echo > /kt/live"
        client = script(
            filled,
            f"cat {TOP}/src/main.c; tail -c 5 {TOP}/home/big; ls /kt/live && echo back > /kt/live",
        )
        output = run(filled, "-c", client, "-s", change, "kta/src")
        assert "late" not in output.split("late", 1)[0]
        assert output.count("late") == 1  # kta/home is live
        assert filled.path("/kt/live").read_text() == "back\n"

    def test_frozen_cannot_be_written(self, filled: Machine):
        before = witness(filled)
        client = script(filled, f"echo x > {TOP}/src/new || rm {TOP}/src/main.c")
        output = run(filled, "-c", client, "kta/src", status=1)
        assert output.lower().count("read-only file system") >= 2
        assert witness(filled) == before

    def test_the_client_gets_the_topmost_paths(self, filled: Machine):
        client = script(filled, 'for each; do echo "[$each]"; done')
        output = run(filled, "-c", client, "-r", "kta/home", "kta/src")
        assert f"[{TOP}/home]\n[{TOP}/src]\n" in output

    def test_odd_mount_points(self, filled: Machine):
        points = ["/kt/two  blanks", "/kt/tab\there", "/kt/new\nline", "/kt/ümläut", "/kt/-dash"]
        for number, point in enumerate(points):
            filled.run(["zfs", "create", "-o", f"mountpoint={point}", f"kta/o{number}"], check=True)
            filled.path(f"{point}/mark").write_text(str(number))
        client = script(filled, 'for each; do echo "<$(cat "$each/mark")>"; done')
        output = run(filled, "-c", client, *(f"kta/o{n}" for n in range(len(points))))
        assert sorted(each for each in output.split() if each.startswith("<")) == [
            f"<{number}>" for number in range(len(points))
        ]

    def test_odd_dataset_names(self, filled: Machine):
        names = ["kta/a b", "kta/x:y", "kta/p.q-r_s", "kta/  two"]
        for name in names:
            filled.run(["zfs", "create", name], check=True)
        output = run(filled, "-c", SHOW, "-r", "kta")
        for name in names:
            assert name in output

    def test_two_on_one_mount_point(self, filled: Machine):
        shell(filled, "zfs create -o mountpoint=/kt/both kta/one; echo 1 > /kt/both/one")
        shell(filled, "zfs create -o mountpoint=/kt/both kta/two; echo 2 > /kt/both/two")
        output = run(filled, "-c", SHOW, "-r", "kta")
        assert "kta/one" in output
        assert "another file system is mounted over it" in output
        output = run(filled, "-c", SHOW, "kta/two")
        assert "two" in output
        run(filled, "-c", SHOW, "kta/one", status=66)

    def test_mounted_elsewhere_than_the_property_says(self, filled: Machine):
        shell(filled, "zfs create -o mountpoint=legacy kta/leg; mkdir /kt/legacy")
        shell(filled, "mount -t zfs kta/leg /kt/legacy; echo > /kt/legacy/mark")
        try:
            assert "/kt/legacy/mark" in run(filled, "-c", "/usr/bin/find", "kta/leg")
        finally:
            shell(filled, "umount /kt/legacy")

    def test_the_view_cannot_be_reached_by_others(self, filled: Machine):
        client = script(filled, "sleep 3")
        process = start(filled, "-c", client, "kta/src")
        wait_for(lambda: filled.path("/var/run/restomic/default/view").exists())
        mode = os.stat(filled.path("/var/run/restomic")).st_mode
        assert process.wait(60) == 0
        assert mode & 0o077 == 0

    def test_a_link_made_meanwhile_leads_no_mount_out_of_the_view(self, filled: Machine):
        """Whoever owns a directory above a mount point can put a symbolic link in its place."""
        above = f"{TOP}/home/above"
        shell(filled, f"mkdir {above}; zfs create -o mountpoint={above}/src kta/inner")
        swap = f"mv {above} {above}2; ln -s {TOP} {above}"
        try:
            output = run(filled, "-c", SHOW, "-s", swap, "kta/src", "kta/inner", status=73)
        finally:
            # zfs(8) goes by the path: it could not even unmount what lies there.
            shell(filled, f"rm {above}; mv {above}2 {above}; echo writable > {TOP}/src/new")
        assert "a symbolic link or a file has taken the place" in output
        # It costs that dataset, and not the other.
        assert "the backup is INCOMPLETE" in output
        assert "main.c\n" in output

    def test_a_gap_keeps_looks(self, filled: Machine):
        shell(filled, f"zfs create kta/home/ben/data; chmod 750 {TOP}/home/ben")
        output = run(
            filled, "-c", f"/bin/ls -ld {TOP}/home/ben", "kta/home", "kta/home/ben/data"
        )
        assert "drwxr-x---" in output


class TestHooks:
    def test_order_and_environment(self, filled: Machine):
        log = f"{BASE}/log"
        tell = f"echo $KOPIATOMIC_PROGRAM $KOPIATOMIC_JOB $KOPIATOMIC_OUTCOME >> {log}"
        client = script(filled, f"echo client >> {log}")
        run(
            filled, "-j", "night", "-c", client, "kta/src",
            "-p", f"echo before >> {log}; {tell}",
            "-s", f"echo snapshot $(zfs list -H -t snapshot -o name | grep -c restomic) >> {log}",
            "-q",
            f"echo after $(zfs list -H -t snapshot -o name | grep -c restomic) >> {log}; {tell}",
        )  # fmt: skip
        assert filled.path(log).read_text().splitlines() == [
            "before", "restomic night", "snapshot 1", "client", "after 0",
            "restomic night success",
        ]  # fmt: skip

    def test_a_failing_before_stops_everything(self, filled: Machine):
        log = f"{BASE}/log"
        output = run(
            filled, "-c", script(filled, f"echo client >> {log}"), "-p", "exit 3", "kta/src",
            "-s", f"echo thaw >> {log}", "-q", f"echo $KOPIATOMIC_OUTCOME >> {log}", status=69,
        )  # fmt: skip
        assert "the command of -p failed, exit status 3" in output
        assert filled.path(log).read_text().splitlines() == ["thaw", "failed"]

    def test_a_failing_thaw_is_told_and_the_backup_goes_on(self, filled: Machine):
        output = run(filled, "-c", "/bin/echo client-ran", "-s", "exit 1", "kta/src", status=69)
        assert f"client-ran {TOP}/src" in output
        assert "the command of -s failed" in output
        assert "the backup succeeded, but NOT ALL IS WELL" in output

    def test_a_failing_after_is_told(self, filled: Machine):
        output = run(filled, "-c", "true", "-q", "false", "kta/src", status=69)
        assert "the command of -q failed" in output
        assert "the backup succeeded, but NOT ALL IS WELL" in output

    def test_thaw_follows_a_snapshot_that_fails(self, filled: Machine):
        leave_pool_no_room(filled, "kta")
        output = run(
            filled, "-c", "true", "-s", f"echo thaw > {BASE}/log", "kta/src", status=73
        )
        assert "no snapshot of kta/src: out of space" in output
        assert filled.path(f"{BASE}/log").exists()


class TestFailures:
    def test_the_clients_status_is_ours(self, filled: Machine):
        assert "exit status 42" in run(
            filled, "-c", script(filled, "exit 42"), "kta/src", status=42
        )

    def test_a_client_that_is_killed(self, filled: Machine):
        client = script(filled, "kill -9 $$")
        assert "killed by SIGKILL" in run(filled, "-c", client, "kta/src", status=137)

    def test_what_the_client_leaves_running_is_ended_and_named(self, filled: Machine):
        client = script(filled, "sleep 300 > /dev/null 2>&1 &\nsleep 0.2; exit 0")
        output = run(filled, "-c", client, "kta/src")
        assert "ended what the client left running: sleep" in output

    def test_a_held_snapshot_stays_and_is_told(self, filled: Machine):
        hold = "zfs list -H -t snapshot -o name | grep restomic | xargs zfs hold kt"
        result = filled.run(
            ["/usr/local/sbin/restomic", "--plain", "-c", "true", "-s", hold, "kta/src"]
        )
        assert result.returncode == 71
        assert "the backup succeeded, but NOT ALL IS WELL" in result.stdout
        assert "cannot be destroyed" in result.stderr
        assert "zfs destroy kta/src@restomic-" in result.stderr
        shell(filled, "zfs list -H -t snapshot -o name | grep restomic | xargs zfs release kt")
        assert "snapshot kta/src@restomic-" in run(filled, "-c", "true", "kta/src")

    @pytest.mark.parametrize("words", [["kta/src"], ["-r", "kta"]])
    def test_a_dataset_renamed_meanwhile_does_not_keep_its_snapshot(self, filled: Machine, words):
        """It is there under its new name, and not in the backup: that is not whole."""
        rename = "zfs rename -u kta/src kta/source"
        output = run(filled, "-c", "true", "-s", rename, *words, status=73)
        told = "! kta/src: not in this backup, as a dataset was renamed, or promoted from a clone"
        assert (told in output) == (words == ["-r", "kta"])
        assert "renamed, or promoted from a clone, during the backup" in output
        assert "its snapshot was kta/source@restomic-" in output

    def test_foreign_snapshots_of_our_name_are_spared(self, filled: Machine):
        take = (
            "name=$(zfs list -H -t snapshot -o name -r kta | sed -n 's/.*@//p' | head -1); "
            "zfs snapshot kta/home/ben@$name"
        )
        words = ["--plain", "-c", "true", "-s", take, "kta/home", "kta/home/with space"]
        result = filled.run(["/usr/local/sbin/restomic", *words])
        assert result.returncode == 0, result.stderr
        left = filled.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name", "-r", "kta"]).stdout
        assert [name.partition("@")[0] for name in left.splitlines()] == ["kta/home/ben"]


def start(machine: Machine, *words: str) -> subprocess.Popen[str]:
    return machine.popen(
        ["/usr/local/sbin/restomic", "--plain", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True,
    )  # fmt: skip


class TestEnds:
    def sleeper(self, machine: Machine) -> str:
        return script(machine, f"echo > {BASE}/sleeping; exec sleep 60")

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_it_in_order(self, filled: Machine, signum):
        process = start(filled, "-c", self.sleeper(filled), "kta/src")
        wait_for(lambda: filled.path(f"{BASE}/sleeping").exists())
        os.kill(process.pid, signum)
        output = process.communicate(timeout=30)[0]
        assert process.returncode == 128 + signum
        assert f"interrupted by {signum.name}" in output
        clean(filled)

    def test_what_a_killed_run_left_is_swept_by_the_next(self, filled: Machine):
        process = start(filled, "-c", self.sleeper(filled), "kta/src")
        wait_for(lambda: filled.path(f"{BASE}/sleeping").exists())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        output = run(filled, "-c", "true", "kta/src")
        assert "Removed, left behind by an earlier run" in output
        assert "snapshot kta/src@restomic-" in output
        assert "process sleep" in output

    def test_it_is_swept_where_var_run_is_a_link(self, filled: Machine):
        if not filled.is_sandbox:
            pytest.skip("would move the /var/run of a real machine")
        shell(filled, "mv /var/run /var/elsewhere; ln -s elsewhere /var/run")
        process = start(filled, "-c", self.sleeper(filled), "kta/src")
        wait_for(lambda: filled.path(f"{BASE}/sleeping").exists())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        assert "/var/elsewhere/restomic/default/view" in filled.run(["mount", "-v"]).stdout
        assert "Removed, left behind by an earlier run" in run(filled, "-c", "true", "kta/src")
        assert "/var/elsewhere/restomic" not in filled.run(["mount", "-v"]).stdout

    def test_sweep_by_hand(self, filled: Machine):
        process = start(filled, "-c", self.sleeper(filled), "kta/src")
        wait_for(lambda: filled.path(f"{BASE}/sleeping").exists())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        result = filled.run(["/usr/local/sbin/restomic", "--sweep"])
        assert result.returncode == 0
        assert "removed snapshot kta/src@restomic-" in result.stdout
        clean(filled)
        assert filled.run(["/usr/local/sbin/restomic", "--sweep"]).stdout == (
            "nothing was left behind\n"
        )

    def test_a_second_run_of_the_job_is_refused(self, filled: Machine):
        process = start(filled, "-c", self.sleeper(filled), "kta/src")
        wait_for(lambda: filled.path(f"{BASE}/sleeping").exists())
        words = ["/usr/local/sbin/restomic", "--plain", "-c", "true"]
        second = filled.run([*words, "kta/src"])
        other = filled.run([*words, "-j", "other", "kta/src"])
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
        assert second.returncode == 75
        assert "restomic/default is still running, since" in second.stderr
        assert other.returncode == 0, other.stderr
        clean(filled)


def test_several_pools(filled: Machine):
    filled.make_pool("ktb")
    output = run(filled, "-c", "true", "-r", "kta/src", "ktb")
    assert "one moment for each pool; kta and ktb lie" in output


def test_snapshots_of_a_pool_are_one_moment(filled: Machine):
    keep = f"zfs list -Hp -t snapshot -o name,createtxg | grep restomic > {BASE}/txg"
    run(filled, "-c", "true", "-r", "kta", "-s", keep)
    groups = [line.split("\t")[1] for line in filled.path(f"{BASE}/txg").read_text().splitlines()]
    assert len(groups) == 5
    assert len(set(groups)) == 1


def test_backup_off_is_inherited(filled: Machine):
    shell(filled, "zfs set org.kopiatomic:backup=off kta/home")
    output = run(filled, "-c", "true", "-r", "kta")
    assert "kta/home/ben" in output
    assert output.count("its property org.kopiatomic:backup is off") == 3


def test_json_report_holds_it_all(filled: Machine):
    words = ["--plain", "--json", "-c", "true", "-r", "kta/home", "-x", "*/ben"]
    result = filled.run(["/usr/local/sbin/restomic", *words])
    report = json.loads(result.stdout)
    assert report["outcome"] == "success"
    assert report["paths"] == [f"{TOP}/home"]
    assert report["left_out"] == [
        {"name": "kta/home/ben", "kind": "excluded", "reason": "excluded by */ben"}
    ]
    assert report["client"]["command"] == ["true", f"{TOP}/home"]


def test_dry_run_changes_nothing(filled: Machine):
    before = filled.run(["mount", "-p"]).stdout, witness(filled)
    result = filled.run(["/usr/local/sbin/restomic", "-n", "-c", "true", "--plain", "-r", "kta"])
    assert result.returncode == 0, result.stderr
    assert f"true {TOP}\n" in result.stdout
    assert (filled.run(["mount", "-p"]).stdout, witness(filled)) == before
    assert not filled.path("/var/run/restomic").exists() or not filled.is_sandbox
    clean(filled)
