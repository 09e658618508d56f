"""The sandbox host keeps what it promises."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from sandbox.host import Host

pytestmark = pytest.mark.linux(reason="the stand-ins are for Linux only")

PROGRAM = """\
local names = {{ {names} }}
local property, value = "org.kopiatomic:run", "a\\"b\\092\\065"
local failed = {{}}
for _, name in ipairs(names) do
    local e = zfs.check.snapshot(name)
    if e ~= 0 then failed[name] = e end
end
if next(failed) ~= nil then return failed end
for _, name in ipairs(names) do
    zfs.sync.snapshot(name)
    zfs.sync.set_prop(name, property, value)
end
return #names
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One machine with the demo's layout, for tests that tidy up after themselves."""
    with Host.create(tmp_path_factory.mktemp("machine") / "host") as host:
        yield layouts.demo(host)
        assert host.violations() == []


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Host]:
    """A machine that a test may ruin."""
    with Host.create(tmp_path / "host") as host:
        yield layouts.demo(host)


def ok(host: Host, script: str) -> str:
    result = host.shell("set -e\n" + script)
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


# -- snapshots -------------------------------------------------------------------------------


def test_a_snapshot_is_the_file_system_at_that_moment(machine: Host) -> None:
    ok(machine, """
        umask 022; cd /home/ben; truncate -s 50M sparse; printf end >> sparse
        mkfifo pipe; ln -s nowhere sym; echo one > one; ln one two; chown ben one; chmod 4750 one
        touch -d '2001-02-03 04:05:06.123456789' one; touch -h -d '2002-01-01' sym
        cp /bin/sh prog; mkdir d; touch -d 1999-09-09 d
        zfs snapshot zroot/home/ben@f; mkdir -p /var/run/v
        mount_nullfs -o ro /home/ben/.zfs/snapshot/f /var/run/v""")
    live, frozen = machine.root / "home/ben", machine.root / "var/run/v"
    for name in ("sparse", "pipe", "sym", "one", "two", "d"):
        was, now = (live / name).lstat(), (frozen / name).lstat()
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
            assert getattr(was, field) == getattr(now, field), (name, field)
        if not machine.faithful:
            continue
        for field in ("st_ino", "st_ctime_ns", "st_nlink", "st_blocks"):
            assert getattr(was, field) == getattr(now, field), (name, field)
        assert was.st_dev != now.st_dev
    assert (frozen / "one").lstat().st_nlink == 2
    assert (frozen / "one").lstat().st_ino == (frozen / "two").lstat().st_ino
    assert (frozen / "sparse").stat().st_blocks * 512 < 1 << 20
    (live / "one").write_text("changed")
    assert (frozen / "one").read_text() == "one\n"
    with pytest.raises(OSError, match="Read-only"):
        (frozen / "new").write_text("x")
    ok(machine, "umount /var/run/v; zfs destroy zroot/home/ben@f; rm -r /home/ben/d")


def test_snapshots_of_one_command_share_a_transaction_group(machine: Host) -> None:
    ok(machine, "zfs snapshot -r zroot@t; zfs snapshot -r tank@t")
    output = ok(machine, "zfs list -Hp -t snapshot -o name,createtxg")
    groups: dict[str, set[str]] = {}
    for line in output.splitlines():
        name, txg = line.split("\t")
        groups.setdefault(name.partition("@")[0].partition("/")[0], set()).add(txg)
    assert {name: len(found) for name, found in groups.items()} == {"zroot": 1, "tank": 1}
    assert groups["zroot"] != groups["tank"]
    ok(machine, "zfs destroy -r zroot@t; zfs destroy -r tank@t")


def test_a_snapshot_inherits_the_user_properties_of_its_dataset(machine: Host) -> None:
    output = ok(machine, """
        zfs set org.x:a=1 zroot/home; zfs snapshot -o org.x:b=2 zroot/home/ben@u
        zfs get -Hp -o property,value,source org.x:a,org.x:b zroot/home/ben@u
        zfs inherit org.x:a zroot/home; zfs destroy zroot/home/ben@u""")
    assert output.splitlines() == ["org.x:a\t1\tinherited from zroot/home", "org.x:b\t2\tlocal"]


def test_a_received_property_says_so(machine: Host) -> None:
    machine.receive_property("zroot/home/ben", "org.x:r", "off")
    output = ok(machine, "zfs get -Hp -s received -o value,source org.x:r zroot/home/ben")
    assert output == "off\treceived\n"
    assert ok(machine, "zfs get -Hp -s local -o value org.x:r zroot/home/ben") == ""


def test_channel_program_makes_all_or_nothing(machine: Host) -> None:
    names = ["zroot/home@c", "zroot/home/with space@c"]
    text = PROGRAM.format(names=", ".join(f'"{name}"' for name in names))
    command = ["zfs", "program", "-j", "-t", "100000000", "-m", "104857600", "zroot", "-"]
    first = machine.run(command, input=text)
    assert (first.returncode, json.loads(first.stdout)) == (0, {"return": 2})
    output = ok(machine, "zfs list -Hp -t snapshot -o name,org.kopiatomic:run,createtxg")
    lines = [line.split("\t") for line in output.splitlines()]
    assert [line[:2] for line in lines] == [[name, 'a"b\\A'] for name in names]
    assert len({line[2] for line in lines}) == 1
    more = PROGRAM.format(names='"zroot/home@c", "zroot/none@c", "zroot/no@c", "tank@c"')
    again = machine.run(command, input=more)
    assert again.returncode == 0
    assert json.loads(again.stdout) == {
        "return": {"zroot/home@c": 17, "zroot/no@c": 2, "tank@c": 18}
    }
    plain = machine.run(["zfs", "program", "zroot", "-"], input=more)
    assert plain.stdout.splitlines()[:3] == [
        "Channel program fully executed and produced output:", "    return:",
        "        zroot/home@c: 17",
    ]
    assert ok(machine, "zfs list -Hp -t snapshot -o name").splitlines() == names
    assert machine.run(command, input="for k, v in x do end").returncode == 1
    ok(machine, "zfs destroy -r zroot@c")


def test_a_full_or_read_only_pool_takes_no_snapshot(fresh: Host) -> None:
    fresh.pool("tank", full=True)
    assert fresh.run(["zfs", "snapshot", "tank@x"]).stderr == (
        "cannot create snapshots : out of space\n")
    fresh.pool("tank", full=False, readonly=True)
    assert fresh.run(["zfs", "snapshot", "tank@x"]).stderr == (
        "cannot create snapshots : pool is read-only\n")


# -- mounts ----------------------------------------------------------------------------------


def test_a_view_is_chrooted_into(machine: Host) -> None:
    ok(machine, """
        mkdir -p /var/run/v; zfs snapshot zroot/home@v
        mount_nullfs / /var/run/v
        mount -t devfs -o ruleset=4 devfs /var/run/v/dev
        mount_nullfs /compat/linux /var/run/v/compat/linux
        mount_nullfs -o ro /home/.zfs/snapshot/v /var/run/v/home
        echo later > /home/a""")
    assert ok(machine, "chroot /var/run/v cat /home/a; cat /home/a") == "live\nlater\n"
    assert ok(machine, "chroot /var/run/v sh -c 'ls /home/ben; : > /dev/null; true & wait'") == ""
    assert ok(machine, "chroot /var/run/v /usr/local/bin/python3 -Ic 'print(6*7)'") == "42\n"
    assert ok(machine, "chroot -u ben /var/run/v id -u") == "1001\n"
    assert machine.run(["chroot", "/var/run/v", "sh", "-c", "kill -9 $$"]).returncode == -9
    assert ok(machine, "ls /var/run/v/compat/sandbox") == ""
    ok(machine, """
        echo live > /home/a
        umount /var/run/v/home /var/run/v/compat/linux /var/run/v/dev /var/run/v
        zfs destroy zroot/home@v; rmdir /var/run/v""")
    assert ok(machine, "mount -v -t nullfs") == ""


def test_a_process_left_in_a_view_is_found_and_can_be_parted_from_it(machine: Host) -> None:
    ok(machine, """
        mkdir /v; mount_nullfs / /v; mount_nullfs /compat/linux /v/compat/linux""")
    left = machine.popen(["chroot", "/v", "sleep", "60"])
    time.sleep(0.2)
    found = machine.run(["fstat", "-f", "/v"]).stdout.splitlines()
    assert found[0] == "USER     CMD          PID   FD MOUNT      INUM MODE         SZ|DV R/W"
    assert [line[:18].split() for line in found[1:]] == [["root", "sleep"]] * 3
    assert [line[26:33].split() for line in found[1:]] == [
        ["wd", "/v"], ["root", "/v"], ["jail", "/v"]]
    ok(machine, "umount -f /v/compat/linux")
    refused = machine.run(["umount", "/v"])
    assert refused.returncode == 1
    assert refused.stderr == "umount: unmount of /v failed: Device busy\n"
    ok(machine, "umount -f /v; rmdir /v")
    left.kill()
    assert left.wait(5) == -9


def test_an_open_file_keeps_a_mount_busy(machine: Host) -> None:
    ok(machine, "mkdir /v; zfs snapshot zroot/home@b; mount_nullfs /home/.zfs/snapshot/b /v")
    with open(machine.root / "v/a") as file:
        reader = machine.popen(["sleep", "60"], stdin=file)
    busy = machine.shell("umount /v; zfs destroy zroot/home@b; umount /home")
    assert busy.stderr.splitlines() == [
        "umount: unmount of /v failed: Device busy",
        "cannot destroy snapshot zroot/home@b: dataset is busy",
        "umount: unmount of /home failed: Device busy",
    ]
    reader.kill()
    reader.wait()
    ok(machine, "umount /v; zfs destroy zroot/home@b; rmdir /v")


def test_a_killed_mount_leaves_nothing_unknown(fresh: Host) -> None:
    ok(fresh, "mkdir -p /v/1 /v/2 /v/3; zfs snapshot zroot/home@k")
    for delay in range(0, 60, 4):
        started = fresh.popen(["mount_nullfs", "/home/.zfs/snapshot/k", f"/v/{delay % 3 + 1}"],
                              stderr=subprocess.DEVNULL)
        time.sleep(delay / 1000)
        started.kill()
        started.wait()
    table = ok(fresh, "mount -p -t nullfs").count("\n")
    mountinfo = (fresh.root / "compat/linux/proc/1/mountinfo").read_text()
    assert mountinfo.count(" /v/") == table
    ok(fresh, "umount -A -t nullfs; zfs destroy zroot/home@k")


def test_files_hidden_by_a_jail_or_a_missing_kernel_module(fresh: Host) -> None:
    fresh.kernel(jailed=True)
    jailed = fresh.shell("zfs list -H -o name; sysctl -n security.jail.jailed; umount /home")
    assert jailed.stdout == "1\n"
    assert jailed.stderr == "umount: unmount of /home failed: Operation not permitted\n"
    fresh.kernel(jailed=False, zfs=False)
    without = fresh.shell("kldstat -q -m zfs || echo none; zfs list")
    assert (without.stdout, without.returncode) == ("none\n", 1)
    assert without.stderr == "internal error: failed to initialize ZFS library\n"


# -- the machine -----------------------------------------------------------------------------


def test_what_is_on_disk_survives_a_power_cut(tmp_path: Path) -> None:
    host = layouts.demo(Host.create(tmp_path / "host"))
    ok(host, """
        zfs snapshot zroot/home@p; mkdir -p /var/run/p/view; touch /var/run/p/lock
        mount_nullfs -o ro /home/.zfs/snapshot/p /var/run/p/view""")
    sleeper = host.popen(["sleep", "60"])
    host.power_cut()
    assert sleeper.wait(5) == -9
    with Host.attach(tmp_path / "host") as again:
        assert ok(again, "mount -v -t nullfs") == ""
        assert ok(again, "zfs list -Hp -t snapshot -o name") == "zroot/home@p\n"
        assert ok(again, "cat /home/a /mnt/legacy/file") == "live\nlegacy\n"
        assert ok(again, "ls -d /var/run/p/*") == "/var/run/p/view\n"
        ok(again, "mount_nullfs -o ro /home/.zfs/snapshot/p /var/run/p/view")
        assert ok(again, "cat /var/run/p/view/a") == "live\n"


def test_a_machine_leaves_nothing_behind(tmp_path: Path) -> None:
    host = layouts.demo(Host.create(tmp_path / "host"))
    sleeper = host.popen(["sh", "-c", "trap '' TERM; sleep 60"])
    host.shut_down()
    assert sleeper.wait(5) != 0
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        assert str(tmp_path) not in backing.read_text()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:
            continue
        assert os.fsencode(tmp_path / "host") not in command


def test_the_installers_layout_freezes_the_root(tmp_path: Path) -> None:
    with layouts.create_installer(tmp_path / "host") as host:
        table = ok(host, "mount").splitlines()
        assert table[0] == "zroot/ROOT/default on / (zfs, local, nfsv4acls)"
        assert "/dev/vtbd1 on /compat/linux (ufs, local)" in table
        ok(host, """
            echo old > /etc/file; echo mail > /var/mail/root
            zfs snapshot -r zroot@i; echo new > /etc/file; mkdir -p /var/run/x
            mount_nullfs -o ro /.zfs/snapshot/i /var/run/x
            mount_nullfs -o ro /var/mail/.zfs/snapshot/i /var/run/x/var/mail""")
        assert ok(host, "cat /var/run/x/etc/file /var/run/x/var/mail/root") == "old\nmail\n"
        assert "zroot/ROOT/default@i on //.zfs/snapshot/i (zfs," in ok(host, "mount -v")
        host.power_cut()
        host.boot()
        assert ok(host, "cat /etc/file") == "new\n"


def test_signals_hit_the_program_itself(machine: Host) -> None:
    started = machine.popen(
        ["sh", "-c", "trap 'echo bye; exit 7' INT; echo up; while :; do sleep 0.01; done"],
        stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    started.send_signal(signal.SIGINT)
    assert started.wait(5) == 7
    assert started.stdout.read() == "bye\n"
    started.stdout.close()
    assert machine.shell("kill -TERM $$").returncode == -15


def test_control_c_on_a_terminal(machine: Host) -> None:
    ours, theirs = pty.openpty()
    started = machine.popen(["sh", "-c", "test -t 1 && echo up; exec sleep 60"], stdin=theirs,
                            stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    assert b"up" in os.read(ours, 100)
    os.write(ours, b"\x03")
    assert started.wait(5) == -2
    os.close(ours)


def test_input_users_and_environment(machine: Host) -> None:
    assert machine.run(["cat"], input="in").stdout == "in"
    assert machine.run(["cat"], input=b"\xff", text=False).stdout == b"\xff"
    assert machine.run(["id", "-u"], user="ben", cwd="/tmp").stdout == "1001\n"
    assert machine.shell("echo $X $HOME; pwd", env={"X": "y"}, cwd="/etc").stdout == (
        "y /root\n/etc\n")
    assert machine.run(["zfs", "list", "-Ho", "name", "tank"], user="ben").stdout == "tank\n"
    assert machine.run(["nosuchprogram"]).returncode == 127
    with pytest.raises(subprocess.TimeoutExpired):
        machine.run(["sh", "-c", "sleep 60; true"], timeout=0.2)


def test_python_has_a_prefix_of_its_own(machine: Host) -> None:
    script = "import sys, sysconfig; print(sys.prefix, sysconfig.get_path('purelib'))"
    output = machine.run(["/usr/local/bin/python3", "-I", "-c", script]).stdout.split()
    assert output[0] == "/usr/local"
    assert output[1].startswith("/usr/local/lib/python3.")
    (machine.root / output[1][1:] / "marker.py").write_text("print('found')")
    assert machine.run(["python3", "-I", "-c", "import marker"]).stdout == "found\n"


def test_commands_are_counted(machine: Host) -> None:
    machine.forget_commands()
    ok(machine, "zfs list -H 'zroot/home/with space'; mount -p > /dev/null")
    assert machine.commands() == [
        ["zfs", "list", "-H", "zroot/home/with space"], ["mount", "-p"]]


def test_too_many_arguments_are_a_violation(fresh: Host) -> None:
    names = [f"tank@{number:0200}" for number in range(3000)]
    result = fresh.run(["zfs", "snapshot", *names])
    assert result.returncode == 70
    assert len(fresh.violations()) == 1


def test_many_datasets_are_made_by_one_process_and_listed(fresh: Host) -> None:
    fresh.create_datasets(["tank/m", *(f"tank/m/{number}" for number in range(300))],
                          **{"org.x:y": "z"})
    listed = ok(fresh, "zfs list -Hp -r -o name,mounted,org.x:y tank/m").splitlines()
    assert len(listed) == 301
    assert "tank/m/7\tyes\tz" in listed
    assert (fresh.root / "data/m/7").is_dir()


def test_copies_where_there_is_no_btrfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOPIATOMIC_SANDBOX_STORE", "copies")
    with layouts.demo(Host.create(tmp_path / "host")) as host:
        assert not host.faithful
        test_a_snapshot_is_the_file_system_at_that_moment(host)
        test_a_view_is_chrooted_into(host)
