"""The system calls that a program finds in the C library; transcript by transcript."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import layouts
from sandbox.host import Host

from standins.prelude import PRELUDE

pytestmark = pytest.mark.linux(reason="the stand-ins are for Linux only")

@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One machine with the demo's layout, for tests that tidy up after themselves."""
    with Host.create(tmp_path_factory.mktemp("machine") / "host") as host:
        yield layouts.demo(host)
        assert host.violations() == []


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """A failing test must not make others fail."""
    yield
    if "machine" in request.fixturenames:
        host = request.getfixturevalue("machine")
        host.shell("""
            mount -p | cut -f 2- | grep -o '/[vw]/*[^[:space:]]*' | sort -r |
            while read -r at; do umount -f "$at"; done
            find /v /w -xdev -depth -type d -exec rmdir {} +""")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Host]:
    """A machine that a test may ruin."""
    with Host.create(tmp_path / "host") as host:
        yield layouts.demo(host)


def python(host: Host, script: str, **options: Any) -> Any:
    """Run a script after the prelude in the host's python; the value that it prints as JSON."""
    command = ["/usr/local/bin/python3", "-I", "-c", PRELUDE + script]
    result = host.run(command, **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) if result.stdout else None


def ok(host: Host, script: str) -> str:
    result = host.shell("set -e\n" + script)
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


def said(host: Host, script: str) -> tuple[str, int]:
    result = host.shell(script, stderr_to_stdout=True)
    return result.stdout.rstrip("\n"), result.returncode


# -- getfsstat(2), statfs(2), fstatfs(2) -----------------------------------------------------


def test_getfsstat_has_freebsds_layout(machine: Host) -> None:
    found = python(machine, """
fields = {n: getattr(Statfs, n).offset for n in "flags owner fsid fstype mntfrom mnton".split()}
first = table()[0]
print(json.dumps([C.sizeof(Statfs), fields, first.version, first.mnton.decode(),
                  [m.mnton.decode() for m in table()]]))""")
    assert found[:4] == [2344, {"flags": 8, "owner": 188, "fsid": 192, "fstype": 280,
                                "mntfrom": 296, "mnton": 1320}, 0x20140518, "/"]
    words = ok(machine, "mount -p").splitlines()
    assert len(found[4]) == len(words)
    assert found[4][1] == "/dev"


def test_getfsstat_fills_what_fits_and_counts_the_rest(machine: Host) -> None:
    found = python(machine, """
everything = len(table())
two = (Statfs * 3)()
libc.getfsstat.argtypes = [C.c_void_p, C.c_long, C.c_int]
filled = libc.getfsstat(C.byref(two), 2 * C.sizeof(Statfs) + 7, NOWAIT)
print(json.dumps([everything, libc.getfsstat(None, 0, NOWAIT), filled, two[1].mnton.decode(),
                  two[2].mnton.decode(), libc.getfsstat(None, 0, 7), C.get_errno()]))""")
    everything, count, filled, second, third, refused, number = found
    assert count == everything > 5
    assert (filled, second, third) == (2, "/dev", "")
    assert (refused, number) == (-1, 22)


def test_flags_are_freebsds(machine: Host) -> None:
    ok(machine, "zfs snapshot zroot/home@f; mkdir -p /v/a /v/b /v/c /v/dev")
    found = python(machine, """
root = table()[0].flags
made = [nul("/home/.zfs/snapshot/f", "/v/a", ro=None), by_path("/v/a")]
os.system("umount /home/.zfs/snapshot/f")
made += [zmount("zroot/home@f", "/v/a", IGNORE, nosuid=None), nul("/v/a", "/v/b"),
         nul("/data", "/v/c", nosuid=None, noexec=None, nosymfollow=None),
         nmount(fstype="devfs", fspath="/v/dev", from_="devfs", ruleset="4")]
flags = [root] + [at("/v/" + n)[0].flags for n in ("a", "b", "c", "dev")]
for n in ("dev", "c", "b", "a"):
    made.append(by_path("/v/" + n))
print(json.dumps([made, [hex(f) for f in flags]]))""")
    assert found[0] == ["ok"] * 10
    # ufs on /: local, noatime, soft updates, root; a snapshot; a nullfs of it, a live one; devfs
    assert found[1] == ["0x10205000", "0x10801019", "0x10801019", "0x40101c", "0x0"]
    ok(machine, "zfs destroy zroot/home@f; rmdir /v/* /v")


def test_names_are_bytes(machine: Host) -> None:
    names = [b"sp  two", b"ta\tb", b"n\nl", b"\xff\xe9", b'q"\\b']
    found = python(machine, f"""
names = {names!r}
for name in names:
    os.makedirs(b"/v/" + name)
    assert nul("/data", os.fsdecode(b"/v/" + name)) == "ok"
print(json.dumps([[m.mnton.hex() for m in table() if m.mnton.startswith(b"/v/")],
                  [by_id(at(b"/v/" + name)[0].fsid) for name in names]]))
for name in names:
    os.rmdir(b"/v/" + name)
os.rmdir("/v")""")
    assert found == [[(b"/v/" + name).hex() for name in names], ["ok"] * 5]


def test_a_mount_point_has_1023_bytes_at_most(machine: Host) -> None:
    found = python(machine, """
long = "/v" + ("/" + "d" * 239) * 4
long += "/" + "e" * (1023 - len(long) - 1)
os.makedirs(long)
os.makedirs(long[:-1] + "xx")
print(json.dumps([len(long), nul("/data", long), nul("/data", long[:-1] + "xx"),
                  len(at(long)[0].mnton), by_path(long)]))
os.removedirs(long[:-1] + "xx")
os.removedirs(long)""")
    assert found == [1023, "ok", "ENAMETOOLONG", 1023, "ok"]


def test_fsid_is_what_stat_and_fstat_go_by(machine: Host) -> None:
    found = python(machine, """
os.makedirs("/v")
nul("/data", "/v")
fsid = at("/v")[0].fsid
held = os.open("/v", os.O_RDONLY)
print(json.dumps([bytes(fsid).hex(), "%#x" % (fsid[0] & 0xffffffff),
                  os.popen(f"fstat -n -p {os.getpid()}").read().splitlines()]))
os.close(held)
by_id(fsid)
os.rmdir("/v")""")
    data, number, lines = found
    assert data.endswith("292900" + "0000")
    assert number == "0x" + bytes.fromhex(data[:8])[::-1].hex()
    assert lines[0] == "USER     CMD          PID   FD  DEV    INUM       MODE SZ|DV R/W"
    mine = [line.split() for line in lines if f" {number} " in line]
    assert [(words[0], words[4], words[6], words[8]) for words in mine] == [
        ("root", number, "40755", "r")]


def test_statfs_and_fstatfs_tell_the_mount_of_a_path_and_of_a_descriptor(machine: Host) -> None:
    ok(machine, "zfs snapshot zroot/home@s; mkdir -p /v /w")
    found = python(machine, """
def ask(call, what):
    one = Statfs()
    if call(what, C.byref(one)):
        return say(-1)
    return [one.mnton.decode(), one.mntfrom.decode(), bytes(one.fsid).hex()]

zmount("zroot/home@s", "/v")
nul("/v", "/w")
ids = {m.mnton.decode(): bytes(m.fsid).hex() for m in table()}
held = os.open("/w/a", os.O_RDONLY)
path = os.open("/w", getattr(os, "O_PATH", os.O_RDONLY))
os.symlink("/w", "/link")
print(json.dumps([ids["/v"], ids["/w"], ask(libc.statfs, b"/v"), ask(libc.statfs, b"/link"),
                  ask(libc.fstatfs, held), ask(libc.fstatfs, path), ask(libc.statfs, b"/nono"),
                  ask(libc.fstatfs, 99), ask(libc.statfs, b"/bin/sh")[0], by_path("/w"),
                  by_path("/w", FORCE), ask(libc.fstatfs, held)]))
os.close(held); os.close(path)
by_path("/v"); os.unlink("/link")""")
    v, w, *rest = found
    assert v != w
    assert rest == [
        ["/v", "zroot/home@s", v], ["/w", "/v", w], ["/w", "/v", w], ["/w", "/v", w], "ENOENT",
        "EBADF", "/compat/linux", "EBUSY", "ok", "EIO"]
    ok(machine, "zfs destroy zroot/home@s; rmdir /v /w")


def test_after_a_boot_the_numbers_begin_anew(fresh: Host) -> None:
    script = """nul("/data", "/v"); print(json.dumps(bytes(at("/v")[0].fsid).hex()))"""
    ok(fresh, "mkdir /v")
    before = python(fresh, script)
    fresh.power_cut()
    fresh.boot()
    assert python(fresh, script) == before


# -- unmount(2) ------------------------------------------------------------------------------


def test_unmount_by_fsid(machine: Host) -> None:
    found = python(machine, """
os.makedirs("/v")
nul("/data", "/v")
fsid = at("/v")[0].fsid
held = open("/v/file")
answers = [by_id(fsid), by_id(fsid, FORCE), by_id(fsid), by_path("/v"), by_path("/data/file"),
           say(libc.unmount(b"nonsense", BYFSID)), by_path("/"), by_path("/nowhere")]
os.rmdir("/v")
print(json.dumps(answers))""")
    assert found == ["EBUSY", "ok", "ENOENT", "EINVAL", "EINVAL", "EINVAL", "EINVAL", "EINVAL"]


def test_unmount_goes_where_a_path_leads(machine: Host) -> None:
    """kern_unmount(): a link is followed; a path that leads nowhere is compared as it is."""
    found = python(machine, """
os.makedirs("/ben/x/data"); os.makedirs("/else/data")
nul("/data", "/ben/x/data")
fsid = at("/ben/x/data")[0].fsid
os.rename("/ben/x", "/ben/y")
os.symlink("/else", "/ben/x")
led = [by_path("/ben/x/data"), by_path("/ben/y/data")]
nul("/elsewhere", "/else/data")
led += [by_path("/ben/x/data"), len(at("/else/data")), len(at("/ben/x/data"))]
os.unlink("/ben/x")
led += [by_path("/ben/x/data"), len(at("/ben/x/data"))]
nul("/data", "/ben/y/data")
fsid = at("/ben/y/data")[0].fsid
os.rename("/ben/y", "/ben/x"); os.symlink("/else", "/ben/y")
led += [by_id(fsid)]
print(json.dumps(led))""")
    assert found == ["EINVAL", "EINVAL", "ok", 0, 1, "ok", 0, "ok"]
    ok(machine, "rm /ben/y; rmdir /ben/x/data /ben/x /ben /else/data /else")


def test_a_user_and_a_jail_may_not(fresh: Host) -> None:
    ok(fresh, "mkdir -p /tmp/v")
    script = """print(json.dumps([nul("/data", "/tmp/v"), by_path("/data"), len(table()) > 5]))"""
    # The tests' own python may be in a place that no other user can reach.
    config = json.loads((fresh.directory / "host.json").read_text())
    library = "import sys; sys.path.insert(0, '/compat/sandbox/lib')\n"
    library += "from sandbox import syscalls; syscalls.install()\n"
    program = [f"/compat/linux{config['fast_python']}", "-IS", "-c", library + PRELUDE + script]
    result = fresh.run(program, user="ben")
    assert json.loads(result.stdout) == ["EPERM", "EPERM", True], result.stderr
    fresh.kernel(jailed=True)
    # Without a right to do so, a jail does not see what is mounted either.
    assert python(fresh, script) == ["EPERM", "EPERM", False]


# -- nmount(2) -------------------------------------------------------------------------------


def test_nmount_refuses_what_it_does_not_know(machine: Host) -> None:
    found = python(machine, """
os.makedirs("/v", exist_ok=True)
open("/file", "w").close()
print(json.dumps([
    nul("/data", "/v", other=None), nul("/data", "/nowhere"), nul("/nowhere", "/v"),
    nul("", "/v"), nmount(fstype="nullfs", target="/data"), nmount(0x4000, fstype="nullfs",
    target="/data", fspath="/v"), nmount(fstype="odd", fspath="/v"),
    zmount("zroot/home@no", "/v"), zmount("zroot/home@no", "/file"),
    nmount(fstype="devfs", fspath="/v", from_="devfs", ruleset="4", other="x"),
    say(libc.nmount((Iovec * 1)(), 1, 0))]))
os.unlink("/file"); os.rmdir("/v")""")
    assert found == ["EINVAL", "ENOENT", "ENOENT", "EINVAL", "EINVAL", "EINVAL", "ENODEV",
                     "ENOENT", "ENOTDIR", "EINVAL", "EINVAL"]
    assert ok(machine, "mount -p").count("/v") == ok(machine, "mount -p").count("/dev/v")


def test_a_relative_mount_point_is_written_down_whole(machine: Host) -> None:
    found = python(machine, """
os.makedirs("/v/w")
os.chdir("/v/w")
answers = [nul("/data", "."), at("/v/w")[0].mntfrom.decode()]
os.chdir("/v")
answers.append(by_path("w"))
print(json.dumps(answers))
os.removedirs("/v/w")""")
    assert found == ["ok", "/data", "ok"]


def test_devfs_and_its_ruleset(machine: Host) -> None:
    found = python(machine, """
os.makedirs("/v")
nmount(fstype="devfs", fspath="/v", from_="devfs", ruleset="4")
print(json.dumps([sorted(os.listdir("/v")), at("/v")[0].mntfrom.decode(), by_path("/v")]))
os.rmdir("/v")""")
    assert found == [["fd", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero",
                      "zfs"], "devfs", "ok"]


@pytest.fixture
def snap(machine: Host) -> Iterator[Host]:
    ok(machine, """
        zfs snapshot zroot/home@s1 zroot/home/ben@s1; zfs snapshot zroot/home@s2
        mkdir -p /v/p /v/q /v/n; echo later > /home/a""")
    yield machine
    machine.shell("""
        umount /v/n; umount /v/p; umount /v/q; umount /home/.zfs/snapshot/s1; zfs mount -a
        for s in s1 s2; do zfs release k zroot/home@$s; zfs destroy -r zroot@$s; done 2>/dev/null
        rmdir /v/p /v/q /v/n /v; echo live > /home/a""")
    assert said(machine, "zfs list -Ht snapshot; mount -p | grep /v/")[0] == ""
    assert ok(machine, "cat /home/a") == "live\n"


def test_a_snapshot_is_mounted_by_itself(snap: Host) -> None:
    found = python(snap, """
print(json.dumps([zmount("zroot/home@s1", "/v/p"), zmount("zroot/home@s1", "/v/p"),
                  zmount("zroot/home@s1", "/v/q"), zmount("zroot/home@s2", "/v/q", IGNORE)]))""")
    assert found == ["ok", "EBUSY", "EBUSY", "ok"]
    assert ok(snap, "cat /v/p/a") == "live\n"
    assert said(snap, "touch /v/p/new")[1] == 1
    shown = ok(snap, "mount | grep /v/")
    assert shown == "zroot/home@s1 on /v/p (zfs, local, noatime, read-only, nfsv4acls)\n"
    assert "zroot/home@s2 on /v/q (zfs, local, noatime, read-only, nfsv4acls, fsid " in ok(
        snap, "mount -v")
    # And now it cannot be mounted by a look into .zfs.
    assert said(snap, "mount_nullfs /home/.zfs/snapshot/s1 /v/n") == (
        "mount_nullfs: /home/.zfs/snapshot/s1: Device busy", 64)


def test_a_look_into_zfs_makes_it_busy(snap: Host) -> None:
    ok(snap, "mount_nullfs /home/.zfs/snapshot/s1 /v/n; umount /v/n")
    script = """
before = zmount("zroot/home@s1", "/v/p")
fsid = at("/home/.zfs/snapshot/s1")[0].fsid
print(json.dumps([before, by_id(fsid), zmount("zroot/home@s1", "/v/p")]))"""
    assert python(snap, script) == ["EBUSY", "ok", "ok"]


def test_the_live_dataset_is_not_pinned_by_its_snapshot(snap: Host) -> None:
    python(snap, """
assert zmount("zroot/home@s1", "/v/p") == zmount("zroot/home/ben@s1", "/v/q") == "ok"
assert nul("/v/p", "/v/n") == "ok" """)
    ok(snap, """
        zfs unmount zroot/home; zfs mount -a; zfs rename zroot/home zroot/h2
        zfs unmount zroot/h2/ben; zfs mount zroot/h2/ben""")
    table = ok(snap, "mount")
    assert "zroot/h2@s1 on /v/p (" in table
    assert "zroot/h2/ben@s1 on /v/q (" in table
    assert "zroot/h2 on /home (" in table
    ok(snap, """
        zfs set mountpoint=/home2 zroot/h2; test -f /home2/a; zfs set mountpoint=/home zroot/h2
        zfs rename zroot/h2 zroot/home; zfs destroy zroot/home@s2; zfs rollback zroot/home@s1
        cat /v/n/a""")
    assert ok(snap, "cat /home/a /v/n/a") == "live\nlive\n"
    assert ok(snap, "ls /home/ben/dir") == "b\n"


def test_a_snapshot_goes_with_its_mount(snap: Host) -> None:
    python(snap, 'assert zmount("zroot/home@s1", "/v/p") == "ok"')
    with open(snap.root / "v/p/a"):
        assert said(snap, "zfs destroy zroot/home@s1") == ("", 0)
    assert "/v/p" not in ok(snap, "mount -v")
    python(snap, 'assert zmount("zroot/home@s2", "/v/p") == "ok"')
    busy = "cannot destroy snapshot zroot/home@s2: dataset is busy"
    assert said(snap, "zfs hold k zroot/home@s2; zfs destroy zroot/home@s2") == (busy, 1)
    assert "/v/p" not in ok(snap, "mount -v")
    python(snap, 'assert zmount("zroot/home@s2", "/v/p") == "ok"')
    assert said(snap, "zfs destroy -d zroot/home@s2") == ("", 0)
    assert "/v/p" not in ok(snap, "mount -v")
    assert ok(snap, "zfs get -Ho value defer_destroy zroot/home@s2") == "on\n"


def test_with_a_nullfs_on_it_a_snapshot_stays(snap: Host) -> None:
    python(snap, """
assert zmount("zroot/home@s1", "/v/p") == nul("/v/p", "/v/n") == "ok"
assert zmount("zroot/home/ben@s1", "/v/q") == "ok" """)
    busy = "cannot destroy snapshot zroot/home@s1: dataset is busy"
    for command in ("zfs destroy zroot/home@s1", "zfs destroy -d zroot/home@s1",
                    "zfs destroy -r zroot/home@s1"):
        assert said(snap, command) == (busy, 1), command
    # None was destroyed, and the other's mount has gone all the same.
    assert "zroot/home/ben@s1" in ok(snap, "zfs list -Ht snapshot -o name")
    assert "/v/q" not in ok(snap, "mount -v")
    assert said(snap, "umount /v/p") == ("umount: unmount of /v/p failed: Device busy", 1)
    assert said(snap, "umount -f /v/p") == ("umount: unmount of /v/p failed: Device busy", 1)
    assert ok(snap, "cat /v/n/a") == "live\n"


def test_snapshots_of_what_is_not_mounted(fresh: Host) -> None:
    ok(fresh, """
        zfs create -o mountpoint=/off -o canmount=off zroot/off
        echo password |
            zfs create -o mountpoint=/crypt -o encryption=on -o keyformat=passphrase zroot/crypt
        echo secret > /crypt/f; zfs unmount zroot/crypt; umount /mnt/legacy
        for d in legacy none noauto jailed off crypt; do zfs snapshot zroot/$d@s; done
        zfs snapshot zroot/vol@s; mkdir /v""")
    script = """
names = "legacy none noauto jailed off crypt".split()
print(json.dumps([[zmount(f"zroot/{n}@s", "/v"), sorted(os.listdir("/v")), by_path("/v")]
                  for n in names]))"""
    assert python(fresh, script) == [
        ["ok", ["file"], "ok"], *[["ok", [], "ok"]] * 4, ["ok", ["f"], "ok"]]
    python(fresh, 'assert zmount("zroot/crypt@s", "/v") == "ok"')
    assert said(fresh, "zfs unload-key zroot/crypt") == (
        "Key unload error: 'zroot/crypt' is busy.", 255)
    ok(fresh, "umount /v; zfs unload-key zroot/crypt")
    assert python(fresh, 'print(json.dumps(zmount("zroot/crypt@s", "/v")))') == "EACCES"


def test_zpool_export_takes_mounted_snapshots_along(fresh: Host) -> None:
    ok(fresh, "zfs snapshot -r tank@s; mkdir -p /v/a /v/b /v/n")
    mount = """
assert zmount("tank@s", "/v/a") == zmount("tank/overlay@s", "/v/b") == "ok"
{more}"""
    python(fresh, mount.format(more='assert nul("/v/b", "/v/n") == "ok"'))
    assert said(fresh, "zpool export tank") == (
        "cannot unmount '/v/b': pool or dataset is busy", 1)
    ok(fresh, "umount /v/n")
    with open(fresh.root / "v/a/file") as file:
        reader = fresh.popen(["sleep", "60"], stdin=file)
    assert said(fresh, "zpool export tank") == (
        "cannot unmount '/v/a': pool or dataset is busy", 1)
    reader.kill()
    reader.wait()
    assert said(fresh, "zpool export tank") == ("", 0)
    assert "/v/" not in ok(fresh, "mount -v")


def test_snapdir_disabled_closes_zfs_and_not_nmount(fresh: Host) -> None:
    ok(fresh, "zfs snapshot tank@s; mkdir /v")
    fresh.receive_property("tank", "snapdir", "disabled")
    assert said(fresh, "mount_nullfs /data/.zfs/snapshot/s /v") == (
        "mount_nullfs: /data/.zfs: No such file or directory", 64)
    assert python(fresh, 'print(json.dumps(zmount("tank@s", "/v")))') == "ok"


# -- what stands in the way of unmounting ----------------------------------------------------


def test_a_nullfs_pins_what_it_is_stacked_on(fresh: Host) -> None:
    ok(fresh, """
        mkdir -p /mnt/u /v/u /v/other /v/d; mount -t tmpfs tmpfs /mnt/u
        zfs create -o mountpoint=/other zroot/other; zpool create -m /ktb ktb /dev/x
        zfs create ktb/d; zfs snapshot zroot/other@s
        mount_nullfs /mnt/u /v/u; mount_nullfs /other /v/other; mount_nullfs /ktb/d /v/d""")
    u = ("umount: unmount of /mnt/u failed: Device busy", 1)
    other = "cannot unmount '/other': pool or dataset is busy"
    assert said(fresh, "umount /mnt/u") == said(fresh, "umount -f /mnt/u") == u
    for command in ("zfs unmount zroot/other", "zfs unmount -f zroot/other",
                    "zfs rename zroot/other zroot/o2", "zfs destroy -r zroot/other"):
        assert said(fresh, command) == (other, 1), command
    assert said(fresh, "zfs set mountpoint=/other2 zroot/other") == (other, 255)
    busy = "cannot unmount '/ktb/d': pool or dataset is busy"
    assert said(fresh, "zpool export ktb") == (busy, 1)
    assert said(fresh, "zpool destroy ktb") == (
        busy + "\ncould not destroy 'ktb': could not unmount datasets", 1)
    assert said(fresh, "fstat -f /mnt/u") == (
        "USER     CMD          PID   FD MOUNT      INUM MODE         SZ|DV R/W", 0)
    # What needs no unmounting works on, and everything does when the nullfs has gone.
    ok(fresh, "zfs set atime=off zroot/other; zfs rollback zroot/other@s")
    assert "zroot/other on /other (zfs, local, noatime, nfsv4acls)" in ok(fresh, "mount")
    ok(fresh, """
        umount /v/u /v/other; umount -f /v/d; umount /mnt/u; zfs rename zroot/other zroot/o2
        zfs set mountpoint=/other2 zroot/o2; zfs destroy -r zroot/o2; zpool export ktb""")


def test_zfs_goes_by_the_name_that_was_written_down(fresh: Host) -> None:
    """transcript-7, end of S1."""
    ok(fresh, """
        mkdir -p /home/ben/x /tmp/data; zfs create -o mountpoint=/home/ben/x/data zroot/xd
        cd /home/ben; mv x y; ln -s /tmp x""")
    assert said(fresh, "zfs unmount -f zroot/xd") == (
        "cannot unmount '/home/ben/x/data': unmount failed", 1)
    assert python(fresh, """print(json.dumps(by_id(at("/home/ben/x/data")[0].fsid)))""") == "ok"


def test_fstat_follows_the_path(fresh: Host) -> None:
    """transcript-7, S1: a directory above is led elsewhere, and a stranger is named."""
    ok(fresh, """
        mkdir -p /tmp/data /home/ben/x/data; mount -t tmpfs tmpfs /tmp/data
        echo > /tmp/data/v; mount_nullfs /data /home/ben/x/data""")
    with open(fresh.root / "tmp/data/v") as file:
        stranger = fresh.popen(["sleep", "60"], stdin=file)
    with open(fresh.root / "home/ben/x/data/file") as file:
        reader = fresh.popen(["tail", "-f", "/dev/null"], stdin=file)
    names = """fstat -f /home/ben/x/data | awk 'NR > 1 { print $2, $4, $5 }' | sort -u"""
    time.sleep(0.2)
    assert ok(fresh, names) == "tail 0 /home/ben/x/data\n"
    number = python(fresh, "print(json.dumps('%#x' % at('/home/ben/x/data')[0].fsid[0]))")
    ok(fresh, "cd /home/ben; mv x y; ln -s /tmp x")
    assert ok(fresh, names) == "sleep 0 /tmp/data\n"
    told = [line.split() for line in ok(fresh, "fstat -n").splitlines() if f" {number} " in line]
    assert [(words[1], words[3]) for words in told] == [("tail", "0")]
    for process in (stranger, reader):
        process.kill()
        process.wait()


# -- file systems that do not answer, owners that nobody knows -------------------------------


def test_one_that_does_not_answer(fresh: Host) -> None:
    ok(fresh, "mkdir /mnt/f; mount -t fusefs /dev/fuse /mnt/f")
    fresh.file_system("/mnt/f", answer="hangs")
    assert "/dev/fuse on /mnt/f (fusefs)\n" in ok(fresh, "mount")
    for command in (["mount", "-v"], ["mount", "-v", "--libxo", "json"],
                    ["/usr/local/bin/python3", "-Ic", PRELUDE + "table(WAIT)"]):
        with pytest.raises(subprocess.TimeoutExpired):
            fresh.run(command, timeout=1)
    found = python(fresh, """
one = at("/mnt/f")[0]
print(json.dumps([one.fstype.decode(), one.mntfrom.decode(), one.flags]))""")
    assert found == ["fusefs", "/dev/fuse", 0]
    ok(fresh, "umount -f /mnt/f; mount -v")


def test_one_that_answers_with_an_error_is_missing(fresh: Host) -> None:
    ok(fresh, "mkdir /mnt/f; mount -t fusefs /dev/fuse /mnt/f")
    fresh.file_system("/mnt/f", answer="fails")
    assert "/mnt/f" in ok(fresh, "mount")
    assert "/mnt/f" not in ok(fresh, "mount -v")
    found = python(fresh, """
print(json.dumps([len(table()) - len(table(WAIT)), libc.statfs(b"/mnt/f", Statfs())]))""")
    assert found == [1, -1]


def test_one_whose_owner_has_gone(fresh: Host) -> None:
    ok(fresh, "mkdir /mnt/u; mount_nullfs /usr/share /mnt/u")
    fresh.file_system("/mnt/u", owner=1001)
    assert "/usr/share on /mnt/u (nullfs, local, noatime, soft-updates, mounted by ben)" in ok(
        fresh, "mount")
    assert python(fresh, """print(json.dumps(at("/mnt/u")[0].owner))""") == 1001
    fresh.file_system("/mnt/u", owner=4711)
    for command in (["mount", "-v"], ["mount", "-v", "--libxo", "json"]):
        crashed = fresh.run(command)
        assert (crashed.returncode, crashed.stdout) == (-signal.SIGSEGV, "")
    assert "/mnt/u" in ok(fresh, "mount -p")
    assert python(fresh, """print(json.dumps(at("/mnt/u")[0].owner))""") == 4711


# -- the rest --------------------------------------------------------------------------------


def test_sysctlbyname(fresh: Host) -> None:
    script = """
number, size = C.c_int(-1), C.c_size_t(4)
def ask(name, old, length):
    return say(libc.sysctlbyname(name, old, C.byref(length), None, 0))
text, room = C.create_string_buffer(20), C.c_size_t(20)
answers = [ask(b"security.jail.jailed", C.byref(number), size), number.value, size.value,
           ask(b"no.such", C.byref(number), size), ask(b"kern.ostype", text, room),
           text.value.decode(), room.value]
room.value = 3
print(json.dumps(answers + [ask(b"kern.ostype", text, room)]))"""
    expected = ["ok", 0, 4, "ENOENT", "ok", "FreeBSD", 8, "ENOMEM"]
    assert python(fresh, script) == expected
    fresh.kernel(jailed=True)
    expected[1] = 1
    assert python(fresh, script) == expected


def test_a_kernel_without_nullfs(fresh: Host) -> None:
    ok(fresh, "mkdir /v")
    fresh.kernel(nullfs=False, loadable=False)
    assert python(fresh, """print(json.dumps(nul("/data", "/v")))""") == "ENODEV"
    assert said(fresh, "mount_nullfs /data /v") == (
        "mount_nullfs: /v: Operation not supported by device", 1)
    fresh.kernel(loadable=True)
    assert python(fresh, """print(json.dumps(nul("/data", "/v")))""") == "ok"
    ok(fresh, "kldstat -q -m nullfs")


def test_each_call_is_noted(machine: Host) -> None:
    ok(machine, "mkdir /v")
    machine.forget_commands()
    python(machine, """nul("/data", "/v", ro=None); table(); by_path("/v")""")
    assert machine.commands() == [
        ["nmount", "fstype=nullfs", "fspath=/v", "target=/data", "ro"],
        ["getfsstat", "mode=2"], ["getfsstat", "mode=2"], ["unmount", "/v", "flags=0x0"]]
    ok(machine, "rmdir /v")


def test_a_program_can_be_put_in_front_of_a_call(fresh: Host) -> None:
    ok(fresh, "mkdir /v; mv /usr/libexec/syscall/unmount /root/real")
    fresh.calls_by_program()
    wrapper = fresh.root / "usr/libexec/syscall/unmount"
    wrapper.write_text('#!/bin/sh\necho "$1" >> /root/seen\nexec /root/real "$@"\n')
    wrapper.chmod(0o755)
    found = python(fresh, """
print(json.dumps([nul("/data", "/v"), len(at("/v")), by_path("/v"), by_path("/v")]))""")
    # The real one goes by the name it was started with.
    assert found[:2] == ["ok", 1]
    assert (fresh.root / "root/seen").read_text() == "/v\n/v\n"
    wrapper.write_text("#!/bin/sh\nkill -9 $PPID\n")
    killed = fresh.run(["/usr/local/bin/python3", "-Ic", PRELUDE + 'by_path("/v")'])
    assert killed.returncode == -9
    fresh.calls_by_program(False)
    assert python(fresh, """print(json.dumps(by_path("/v")))""") in ("ok", "EINVAL")


def test_a_python_without_ctypes(fresh: Host) -> None:
    fresh.nmount(there=False)
    gone = fresh.run(["/usr/local/bin/python3", "-Ic", "import ctypes"])
    assert "ModuleNotFoundError: No module named '_ctypes'" in gone.stderr
    fresh.nmount(there=True)
    python(fresh, "assert table()")


def test_nothing_is_loaded_before_it_is_needed(machine: Host) -> None:
    script = "import sys; print(sorted({'ctypes', 'sandbox', 'subprocess'} & set(sys.modules)))"
    assert ok(machine, f'/usr/local/bin/python3 -Ic "{script}"') == "[]\n"


def test_a_signal_waits_for_the_end_of_a_call(machine: Host) -> None:
    """As in a kernel: a handler that raises leaves no half of a mount."""
    python(machine, """
import signal
class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
os.makedirs("/v")
stopped = 0
for n in range(40):
    signal.setitimer(signal.ITIMER_REAL, 0.0002 * n + 0.0001)
    try:
        nul("/data", "/v"); by_path("/v")
    except Stop:
        stopped += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    for one in at("/v"):
        assert by_path("/v") == "ok"
assert stopped
assert not os.listdir("/v")
os.rmdir("/v")""")
    assert os.listdir(machine.root / "data") == ["file"]


def test_mount_tells_mountd_and_the_call_does_not(fresh: Host) -> None:
    ok(fresh, "mkdir /v /w")
    mountd = fresh.popen(["/usr/local/bin/python3", "-Ic", """
import fcntl, os, signal, sys
file = open("/var/run/mountd.pid", "w")
file.write(str(os.getpid())); file.flush()
fcntl.flock(file, fcntl.LOCK_EX)
signal.signal(signal.SIGHUP, lambda *_: print("HUP", flush=True))
print("up", flush=True)
while True: signal.pause()"""], stdout=subprocess.PIPE)
    assert mountd.stdout.readline() == "up\n"
    python(fresh, """
nmount(fstype="devfs", fspath="/v", from_="devfs", ruleset="4"); nul("/data", "/w")""")
    ok(fresh, "umount /v /w; mount_nullfs /data /w; umount /w; mount -t devfs devfs /v")
    assert mountd.stdout.readline() == "HUP\n"
    mountd.kill()
    assert mountd.stdout.read() == ""
    mountd.stdout.close()
    mountd.wait()
