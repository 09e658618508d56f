"""The running fake host: makes its namespaces and mounts, then is its init."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sandbox import kernel, rootfs
from sandbox.datasets import World
from sandbox.mounts import Mount, Table, fsid, plain
from sandbox.state import INSIDE, PROC, State, new_guid
from sandbox.volumes import show_devices
from sandbox.zpool_get import FEATURES

# What the installer makes of the first disk; the second one is empty.
DISKS = {
    "ada0": ["GPT 128", "1 efi 40 532480 efiboot0", "2 freebsd-boot 532520 1024 gptboot0",
             "3 freebsd-swap 534528 4194304 swap 0", "4 freebsd-zfs 4728832 16240640 zfs0"],
    "ada1": [],
}

FLAGS_UFS = frozenset({"local", "noatime", "soft-updates"})


def main() -> None:
    """`holder.py DIRECTORY`: answers `PID LOOP` on stdout when the host is up."""
    base = os.path.abspath(sys.argv[1])
    kernel.die_with_parent()
    os.umask(0o022)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        _init(base, done)
    os.close(done)
    answer = os.read(ready, 100).decode()
    if answer:
        print(child, answer, flush=True)
    os.close(1)
    os.waitpid(child, 0)


def _init(base: str, done: int) -> None:
    kernel.die_with_parent()
    os.setsid()
    with open(f"{base}/host.json") as file:
        config = json.load(file)
    socket.sethostname(config["hostname"])
    kernel.mount("proc", "/proc", "proc")
    loop = _mount_pool(base, config)
    _enter_root(base, config)
    _boot()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    os.write(done, str(loop).encode())
    os.close(done)
    _reap()
    os._exit(0)


def _reap() -> None:
    """Init's daily work, until SIGTERM: then end everything politely."""
    while signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) == signal.SIGCHLD:
        _collect()
    try:
        os.kill(-1, signal.SIGTERM)
        os.kill(-1, signal.SIGCONT)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + 0.1
    while _collect() and time.monotonic() < deadline:
        time.sleep(0.005)


def _collect() -> bool:
    """Reap what has ended; tells whether anything else still runs."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    return any(name.isdigit() and name != "1" for name in os.listdir(PROC))


def _mount_pool(base: str, config: dict[str, str]) -> int:
    loop = -1
    if config["store"] == "btrfs":
        device, loop = kernel.attach_loop(f"{base}/pool.btrfs")
        options = "nobarrier,nodiscard,commit=300,user_subvol_rm_allowed"
        kernel.mount(f"/dev/loop{loop}", f"{base}/pool", "btrfs", 0, options)
        os.close(device)
    else:
        kernel.bind(f"{base}/pool", f"{base}/pool")
    for name in ("data", "snap"):
        os.makedirs(f"{base}/pool/{name}", exist_ok=True)
    kernel.mount("sandbox", f"{base}/dev", "tmpfs", 0, "mode=0755")
    rootfs.make_devices(f"{base}/dev")
    kernel.bind(config["package"], f"{base}/lib/sandbox")
    return loop


def _enter_root(base: str, config: dict[str, str]) -> None:
    """Make the fake root the root; Linux's own moves to /compat/linux."""
    root = f"{base}/root"
    source = root
    with State(base) as state:
        if config["root_dataset"]:
            row = state.one("select id from datasets where name = ?", config["root_dataset"])
            if not row:
                # Its row is written by _first_boot; the first dataset of a host has number 1.
                state.store.create(1)
            source = state.store.dataset(row[0] if row else 1)
        kernel.bind(source, root)
        if not os.path.lexists(f"{root}/bin/sh"):
            rootfs.build(root, config)
            _first_boot(state, config)
        state.set_meta("root_dataset", config["root_dataset"])
    kernel.bind(base, f"{root}{INSIDE}", kernel.MS_REC)
    for name in ("pool", "dev", "lib/sandbox"):
        kernel.umount(f"{base}/{name}", kernel.MNT_DETACH)
    os.chdir(root)
    kernel.pivot_root(".", "compat/linux")
    os.chroot(".")
    os.chdir("/")


def _first_boot(state: State, config: dict[str, str]) -> None:
    """Write down the pool that / is on."""
    name = config["root_dataset"]
    state.set_meta("disks", json.dumps(DISKS if name else {each: [] for each in DISKS}))
    if not name:
        return
    pool = name.partition("/")[0]
    parts = name.split("/")
    columns = "insert into datasets (id, name, kind, creation, txg, guid, locked)"
    moment = int(time.time())
    state.begin()
    state.run("insert into pools (name, guid, vdevs) values (?, ?, 'gpt/zfs0')", pool, new_guid())
    for key, value in (("bootfs", name), *((f"feature@{f}", "enabled") for f in FEATURES)):
        state.run("insert into poolprops values (?, ?, ?)", pool, key, value)
    state.run(f"{columns} values (1, ?, 'filesystem', ?, 1, ?, 0)", name, moment, new_guid())
    for depth in range(1, len(parts)):
        number = state.run(f"{columns} values (null, ?, 'filesystem', ?, 1, ?, 0)",
                           "/".join(parts[:depth]), moment, new_guid())
        point = f"/{pool}" if depth == 1 else "none"
        state.run("insert into props values (?, 'mountpoint', ?, 'local')", number, point)
        state.store.create(number)
    for key, value in (("mountpoint", "/"), ("canmount", "noauto")):
        state.run("insert into props values (1, ?, ?, 'local')", key, value)
    state.commit()


def _boot() -> None:
    """Begin a new mount table: what rc(8) does, as far as it concerns us."""
    with State() as state:
        state.run("delete from mounts")
        # After a boot the same numbers are given out again, to other mounts.
        state.set_meta("fsid", "0")
        state.run("update datasets set locked = 1 where encroot is not null")
        state.set_meta("nullfs", "0")
        root = state.meta("root_dataset")
        world = World(state)
        _record_root(world, root)
        world.table.devfs("/dev", "")
        _record(world.table, plain("/dev/vtbd1", "/compat/linux", "ufs", frozenset({"local"})))
        world.mount_all()
        _mount_fstab(world)
        show_devices(world)
    _clean_run("/var/run")


def _record_root(world: World, root: str) -> None:
    if root:
        dataset = world.datasets[root]
        mount = Mount(root, "/", "zfs", world.flags(dataset), fsid(dataset.guid),
                      dataset=dataset.id)
        world.mounted.add(root)
        _record(world.table, mount)
    else:
        _record(world.table, plain("/dev/vtbd0", "/", "ufs", FLAGS_UFS))


def _record(table: Table, mount: Mount) -> None:
    """Write down what is mounted already."""
    mount.kernel = kernel.mount_id(mount.node, PROC)
    table.insert(mount)


def _mount_fstab(world: World) -> None:
    if not os.path.exists("/etc/fstab"):
        return
    with open("/etc/fstab") as lines:
        for line in lines:
            words = [w.replace("\\040", " ") for w in line.split()]
            if len(words) > 3 and words[2] == "zfs" and words[0] in world.datasets:
                world.mount(world.datasets[words[0]], words[1])


def _clean_run(directory: str) -> None:
    """/etc/rc.d/cleanvar: files in /var/run do not survive a boot, directories do."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _clean_run(entry.path)
            else:
                os.unlink(entry.path)


if __name__ == "__main__":
    main()
