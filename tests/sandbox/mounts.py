"""The mount table and the operations on it; every visible mount is a real Linux mount.

Not imitated: the `.zfs` directory itself, since Linux offers no hidden directory. Only
mount_nullfs, `mount -t nullfs` and nmount(2) understand a source below
`MOUNT POINT/.zfs/snapshot/NAME`; `ls /home/.zfs/snapshot` finds nothing. And a file that is
open in a mount taken away by force can be read on, where FreeBSD answers EIO: Linux only
detaches the mount.
"""

from __future__ import annotations

import errno
import os

from sandbox.jails import MADE_IN_JAIL
from sandbox.state import INSIDE, PROC, State

CONTROL = "/.zfs/snapshot/"
# name in `mount`, name in `mount -p` or nothing; in the order in which `mount` prints them
NAMES = (
    ("local", ""),
    ("noatime", "noatime"),
    ("noexec", "noexec"),
    ("nosuid", "nosuid"),
    ("nosymfollow", "nosymfollow"),
    ("read-only", "ro"),
    ("soft-updates", ""),
    ("nfsv4acls", "nfsv4acls"),
)
FSTAB_ORDER = ("noexec", "nosuid", "noatime", "nosymfollow", "nfsv4acls")
AUTOMOUNT = -2
UNREACHABLE = -3
PENDING = -1
LONGEST = 1023

# What waits for no other machine, of what is not ZFS.
LOCAL = ("tmpfs", "procfs", "msdosfs")

# vfc_typenum of file systems that get a number in the order of mounting, vfs_getnewfsid().
TYPES = {"nullfs": 0x29, "devfs": 0x71, "tmpfs": 0x87, "procfs": 0x02}
ZFS_TYPE = 0xDE

COLUMNS = ("id, special, node, fstype, flags, hidden, fsid, dataset, snapshot, lower, kernel,"
           " owner, answer")


class MountError(Exception):
    """A refused operation: the path it is about and an errno."""

    def __init__(self, path: str, code: int) -> None:
        super().__init__(path, code)
        self.path = path
        self.code = code

    @property
    def text(self) -> str:
        """As FreeBSD words it, which is not always how Linux does."""
        words = {errno.EBUSY: "Device busy", errno.EDEADLK: "Resource deadlock avoided",
                 errno.ENODEV: "Operation not supported by device"}
        return words.get(self.code) or os.strerror(self.code)


class Mount:
    """One line of the mount table. (No dataclass: that import costs a stand-in 15 ms.)"""

    def __init__(self, special: str, node: str, fstype: str, flags: frozenset[str], fsid: str, *,
                 number: int = 0, hidden: bool = False, dataset: int | None = None,
                 snapshot: int | None = None, lower: int | None = None,
                 kernel: int = PENDING, owner: int = 0, answer: str = "") -> None:
        self.id = number
        self.special = special
        self.node = node
        self.fstype = fstype
        self.flags = flags
        self.fsid = fsid
        self.hidden = hidden
        self.dataset = dataset
        self.snapshot = snapshot
        self.lower = lower
        self.kernel = kernel
        self.owner = owner
        self.answer = answer

    @property
    def options(self) -> list[str]:
        """The flags as `mount` prints them."""
        return [name for name, _ in NAMES if name in self.flags]

    @property
    def fstab_options(self) -> str:
        """The flags as `mount -p` prints them."""
        first = "ro" if "read-only" in self.flags else "rw"
        return ",".join([first] + [name for name in FSTAB_ORDER if name in self.flags])

    @property
    def device(self) -> int:
        """st_dev on it, unsigned: all of the fsid for ZFS, the first half for anything else."""
        data = bytes.fromhex(self.fsid)
        return int.from_bytes(data if self.fstype == "zfs" else data[:4], "little")


class Table:
    """The mount table of a host whose state is locked."""

    def __init__(self, state: State) -> None:
        self.state = state
        if state.may_write and state.flag("changing"):
            self._reconcile()

    def all(self) -> list[Mount]:
        """In the order in which things were mounted."""
        return self._where("1")

    def seen(self) -> list[Mount]:
        """Those that getfsstat(2) tells of, to a jail without their numbers."""
        from sandbox.jails import current

        jail, mounts = current(self.state), self.all()
        if jail is None:
            return mounts
        for mount in mounts:
            mount.fsid = "00" * 8
        return [m for m in mounts if jail.level < 2 or m.node == "/"]

    def _where(self, condition: str, *values: object) -> list[Mount]:
        rows = self.state.rows(
            f"select {COLUMNS} from mounts where {condition} order by id", *values)
        return [
            Mount(_read(r[1]), _read(r[2]), r[3], frozenset(r[4].split()), r[6], number=r[0],
                  hidden=bool(r[5]), dataset=r[7], snapshot=r[8], lower=r[9], kernel=r[10],
                  owner=r[11], answer=r[12])
            for r in rows
        ]

    def holding(self, path: str) -> Mount | None:
        """The mount that an existing path is on, asked of the kernel."""
        from sandbox.kernel import mount_id

        return self.numbered(mount_id(path, PROC))

    def numbered(self, kernel: int) -> Mount | None:
        """The mount of a number of the kernel's.

        The Linux userland is many Linux mounts, but one mount of the fake host.
        """
        seen = _kernel_mounts() if not self._where("kernel = ?", kernel) else {}
        for _ in range(len(seen) + 1):
            found = self._where("kernel = ?", kernel)
            if found:
                return found[-1]
            kernel = seen.get(kernel, (-1, ""))[0]
        return None

    def add(self, source: str, mount: Mount, rec: bool = False, fstype: str = "") -> Mount:
        """Mount source at mount.node for real and write it down.

        The line is written first, so that a stand-in killed half way leaves nothing unknown.
        """
        from sandbox import kernel

        if len(os.fsencode(mount.node)) > LONGEST:
            raise MountError(mount.node, errno.ENAMETOOLONG)
        mount.flags -= {MADE_IN_JAIL}
        if self.state.flag("jailed"):
            mount.flags |= {MADE_IN_JAIL}
        self.state.set_meta("changing", "1")
        mount.id = self.insert(mount)
        try:
            if fstype:
                kernel.mount(fstype, mount.node, fstype)
            else:
                kernel.bind(source, mount.node, linux_flags(mount.flags, rec))
        except OSError as error:
            self.state.run("delete from mounts where id = ?", mount.id)
            self.state.set_meta("changing", "0")
            raise MountError(mount.node, error.errno or 0) from error
        mount.kernel = kernel.mount_id(mount.node, PROC)
        self.state.run("update mounts set kernel = ? where id = ?", mount.kernel, mount.id)
        self.state.set_meta("changing", "0")
        return mount

    def unmount(self, path: str, force: bool = False) -> None:
        """unmount(2) of a path, as kern_unmount() finds what it means.

        Where the path leads now, if it leads anywhere, has to be the name of a mount; else the
        path itself has to be. So a mount whose path was led elsewhere is not found, and what is
        mounted elsewhere is.
        """
        try:
            path = os.path.realpath(path, strict=True)
        except OSError:
            path = path.rstrip("/") or "/"
        found = self._where("node = ?", _stored(path))
        if not found or (path == "/" and found[-1].lower is None):
            raise MountError(path, errno.EINVAL)
        self.remove(found[-1], force)

    def identified(self, fsid: str) -> Mount:
        """The mount with a file system id, given as 16 hexadecimal digits."""
        found = self._where("fsid = ?", fsid)
        if not found:
            raise MountError(fsid, errno.ENOENT)
        return found[0]

    def uppers(self, mount: Mount) -> list[Mount]:
        """The nullfs mounts that are stacked on a mount or on its automounted snapshots."""
        lowers = [mount.id, *(m.id for m in self._automounts(mount))]
        marks = ", ".join("?" * len(lowers))
        return self._where(f"fstype = 'nullfs' and lower in ({marks})", *lowers)

    def remove(self, mount: Mount, force: bool = False) -> None:
        """Unmount for real and forget the line.

        What has a nullfs stacked on it stays, forced or not: dounmount(), sys/kern/vfs_mount.c.
        """
        from sandbox import kernel

        if self.state.flag("jailed") and not self._is_jails_own(mount):
            raise MountError(mount.node, errno.EPERM)
        if self.uppers(mount):
            raise MountError(mount.node, errno.EBUSY)
        if mount.kernel >= 0:
            deep = force or mount.special == "/compat/linux"
            self.state.set_meta("changing", "1")
            try:
                kernel.umount(self.way_to(mount), kernel.MNT_DETACH if deep else 0)
            except OSError as error:
                self.state.set_meta("changing", "0")
                raise MountError(mount.node, error.errno or 0) from error
            for automount in self._automounts(mount):
                self.state.run("delete from mounts where id = ?", automount.id)
        self.state.run("delete from mounts where id = ?", mount.id)
        if mount.kernel >= 0:
            if deep:
                # Linux takes along what is mounted below it.
                self._reconcile()
            self.state.set_meta("changing", "0")

    def _is_jails_own(self, mount: Mount) -> bool:
        """vfs_suser() and secpolicy of zfs destroy, which unmounts what its caller may not."""
        if mount.fstype == "zfs" and mount.snapshot and mount.kernel == AUTOMOUNT:
            return True
        return MADE_IN_JAIL in mount.flags and may_mount(self.state, mount.fstype)

    def remove_point(self, path: str) -> None:
        """Remove an empty directory that nothing is mounted on any more, as zfs(8) does.

        FreeBSD's rmdir(2) does not mind what is mounted on it as a nullfs shows it. That stays
        in the mount table, but no path leads to it any more. Linux would refuse: so it is
        detached, and its line stays.
        """
        from sandbox import kernel

        try:
            if os.listdir(path) or self._where("node = ?", _stored(path)):
                return
        except OSError:
            return
        self.state.set_meta("changing", "1")
        for mount in self.all():
            if mount.kernel >= 0 and self._shown_at(mount) == path:
                kernel.umount(self.way_to(mount), kernel.MNT_DETACH)
                inside = [m for m in self.all() if m.kernel not in (AUTOMOUNT, *_kernel_mounts())]
                for each in inside:
                    self.state.run("update mounts set kernel = ? where id = ?", UNREACHABLE,
                                   each.id)
        self.state.set_meta("changing", "0")
        os.rmdir(path)

    def _shown_at(self, mount: Mount) -> str:
        """The live directory that a mount of a view lies on, through the nullfs it is in."""
        above = [m for m in self.all()
                 if m.id < mount.id and f"{mount.node}/".startswith(f"{m.node.rstrip('/')}/")]
        around = max(above, key=lambda m: (len(m.node), m.id), default=None)
        if around is None or around.fstype != "nullfs":
            return ""
        return around.special.rstrip("/") + mount.node[len(around.node):]

    def way_to(self, mount: Mount) -> str:
        """Where the root of a mount can be reached now; MountError where something hides it."""
        from sandbox import kernel

        if kernel.mount_id(mount.node, PROC) == mount.kernel:
            return mount.node
        path = _kernel_mounts().get(mount.kernel, (-1, ""))[1]
        if not path or kernel.mount_id(path, PROC) != mount.kernel:
            raise MountError(mount.node, errno.EBUSY)
        return path

    def change_flags(self, mount: Mount, flags: frozenset[str]) -> None:
        """Give what is mounted other flags, in place."""
        from sandbox import kernel

        if flags == mount.flags:
            return
        kernel.rebind(self.way_to(mount), linux_flags(flags))
        self.state.run("update mounts set flags = ? where id = ?", " ".join(sorted(flags)),
                       mount.id)

    def _automounts(self, mount: Mount) -> list[Mount]:
        if mount.fstype != "zfs":
            return []
        return self._where("kernel = ? and lower = ?", AUTOMOUNT, mount.id)

    def insert(self, mount: Mount) -> int:
        """Write a line of the table down."""
        return self.state.run(
            "insert into mounts (special, node, fstype, flags, hidden, fsid, dataset, snapshot,"
            " lower, kernel, owner) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _stored(mount.special), _stored(mount.node), mount.fstype,
            " ".join(sorted(mount.flags)), int(mount.hidden), mount.fsid, mount.dataset,
            mount.snapshot, mount.lower, mount.kernel, mount.owner)

    def _reconcile(self) -> None:
        """Bring the table in line with the kernel, after a stand-in was killed half way."""
        kernel = _kernel_mounts()
        known = {m.kernel for m in self.all()}
        for mount in self.all():
            if mount.kernel == PENDING:
                fresh = [n for n, (_, node) in kernel.items()
                         if node == mount.node and n not in known]
                if fresh:
                    self.state.run("update mounts set kernel = ? where id = ?", fresh[0], mount.id)
                    continue
            if mount.kernel not in (AUTOMOUNT, UNREACHABLE, *kernel):
                self.state.run("delete from mounts where id = ?", mount.id)
        self.state.set_meta("changing", "0")

    # -- kinds of mounts ---------------------------------------------------------------------

    def nullfs(self, source: str, target: str, options: frozenset[str],
               hidden: bool = False) -> Mount:
        """mount_nullfs: a view of source on target, both absolute and free of symlinks."""
        if not self.state.flag("nullfs") and not self.state.flag("loadable"):
            raise MountError(target, errno.ENODEV)
        linux, lower = self._nullfs_source(source)
        over = self.holding(target)
        if over and over.fstype == "nullfs" and _same(linux, target):
            raise MountError(target, errno.EDEADLK)
        flags = options | (lower.flags if lower else frozenset())
        mount = Mount(source, target, "nullfs", flags, self.new_fsid("nullfs"),
                      hidden=hidden or bool(lower and lower.hidden),
                      snapshot=lower.snapshot if lower else None,
                      lower=lower.id if lower else None)
        # The Linux userland is many Linux mounts, but one mount of the fake host.
        return self.add(linux, mount, rec=source == "/compat/linux")

    def new_fsid(self, fstype: str) -> str:
        """vfs_getnewfsid(): a number that begins anew at each boot."""
        number = int(self.state.meta("fsid")) + 1
        self.state.set_meta("fsid", str(number))
        kind = TYPES.get(fstype, 0x05)
        return bytes([number & 0xFF, 0xFF, number >> 8 & 0xFF, kind, kind, 0, 0, 0]).hex()

    def _nullfs_source(self, source: str) -> tuple[str, Mount | None]:
        if CONTROL not in source + "/":
            return source, self.holding(source)
        node, rest = (source + "/").split(CONTROL, 1)
        mount = self.holding(node or "/")
        name, _, inside = rest.rstrip("/").partition("/")
        if (mount is None or mount.fstype != "zfs" or mount.node != (node or "/")
                or mount.snapshot or self._no_control(mount)):
            raise MountError(f"{node}/.zfs", errno.ENOENT)
        row = self.state.one("select id, guid from snapshots where dataset = ? and name = ?",
                             mount.dataset, name)
        if not row:
            raise MountError(f"{node}{CONTROL}{name}", errno.ENOENT)
        linux = self.state.store.snapshot(mount.dataset or 0, row[0])
        if inside:
            linux = f"{linux}/{inside}"
        if not os.path.exists(linux):
            raise MountError(source, errno.ENOENT)
        return linux, self._automount(mount, name, row[0], row[1])

    def _no_control(self, mount: Mount) -> bool:
        """OpenZFS 2.3's snapdir=disabled, which a test can set where 2.2 refuses it."""
        row = self.state.one("select value from props where dataset = ? and name = 'snapdir'",
                             mount.dataset)
        return bool(row) and row[0] == "disabled"

    def of_snapshot(self, snapshot: int) -> list[Mount]:
        """The one mount of a snapshot itself, wherever it is; without what is stacked on it."""
        return self._where("snapshot = ? and fstype = 'zfs'", snapshot)

    def _automount(self, mount: Mount, name: str, snapshot: int, guid: int) -> Mount:
        """The snapshot itself, mounted where it was asked for, until it is destroyed."""
        node = f"{mount.node}{CONTROL}{name}"
        for known in self.of_snapshot(snapshot):
            if known.kernel == AUTOMOUNT and known.node == node:
                return known
            raise MountError(node, errno.EBUSY)
        flags = frozenset({"local", "noatime", "nosuid", "read-only", "nfsv4acls"})
        new = Mount(f"{mount.special}@{name}", node, "zfs", flags, fsid(guid), hidden=True,
                    dataset=mount.dataset, snapshot=snapshot, lower=mount.id, kernel=AUTOMOUNT)
        new.id = self.insert(new)
        return new

    def snapshot(self, name: str, target: str, flags: frozenset[str], hidden: bool) -> Mount:
        """A snapshot itself, as nmount(2) and `mount -t zfs fs@snap` do: needs no `.zfs`.

        Whatever the dataset is, mounted, jailed or neither. Busy where the snapshot is mounted
        already, or automounted.
        """
        row = self.state.one(
            "select s.id, s.guid, d.id, d.kind, d.locked from snapshots s"
            " join datasets d on d.id = s.dataset join pools p on p.exported = 0 and (d.name ="
            " p.name or substr(d.name, 1, length(p.name) + 1) = p.name || '/')"
            " where d.name = ? and s.name = ?", *name.split("@", 1))
        if not row:
            raise MountError(name, errno.ENOENT)
        number, guid, dataset, kind, locked = row
        if kind != "filesystem":
            raise MountError(target, errno.EINVAL)
        if locked:
            raise MountError(target, errno.EACCES)
        if self.of_snapshot(number):
            raise MountError(target, errno.EBUSY)
        flags |= {"local", "noatime", "read-only", "nfsv4acls"}
        mount = Mount(name, target, "zfs", flags, fsid(guid), hidden=hidden, dataset=dataset,
                      snapshot=number)
        return self.add(self.state.store.snapshot(dataset, number), mount)

    def devfs(self, target: str, ruleset: str, flags: frozenset[str] = frozenset(),
              hidden: bool = False) -> Mount:
        """mount -t devfs: all devices, or with a jail's ruleset a few."""
        kind = "full" if ruleset in ("", "0") else "jail"
        mount = Mount("devfs", target, "devfs", flags, self.new_fsid("devfs"), hidden=hidden)
        return self.add(f"{self.state.base}/dev/{kind}", mount)

    def special(self, special: str, target: str, fstype: str, options: frozenset[str]) -> Mount:
        """tmpfs for real; procfs and its like as an empty directory; msdosfs keeps its files."""
        flags = options | (frozenset({"local"}) if fstype in LOCAL else frozenset())
        mount = Mount(special, target, fstype, flags, self.new_fsid(fstype))
        if fstype == "msdosfs":
            from sandbox.cmd_geom import contents

            os.makedirs(contents(self.state, special), exist_ok=True)
            return self.add(contents(self.state, special), mount)
        return self.add(special, mount, fstype="tmpfs")


def _stored(name: str) -> str | bytes:
    """A name as the database keeps it, whose texts are UTF-8 only."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name)


def _read(name: str | bytes) -> str:
    return os.fsdecode(name)


def plain(special: str, node: str, fstype: str, flags: frozenset[str]) -> Mount:
    """A mount of something that is no dataset and has an id of its own, such as UFS."""
    return Mount(special, node, fstype, flags, os.urandom(8).hex())


def fsid(guid: int) -> str:
    """The file system id of a dataset or snapshot: of its number, with the type in between."""
    data = (guid & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
    return (data[:4] + bytes([ZFS_TYPE]) + data[4:7]).hex()


def linux_flags(flags: frozenset[str], rec: bool = False) -> int:
    """What of the flags the Linux kernel can enforce."""
    from sandbox import kernel

    numbers = {"read-only": kernel.MS_RDONLY, "nosuid": kernel.MS_NOSUID,
               "noexec": kernel.MS_NOEXEC, "noatime": kernel.MS_NOATIME,
               "nosymfollow": kernel.MS_NOSYMFOLLOW}
    return sum(n for name, n in numbers.items() if name in flags) | (kernel.MS_REC if rec else 0)


def resolve(path: str) -> str:
    """realpath(3): absolute and free of symlinks; raises for the first component missing."""
    if CONTROL in path + "/":
        node, rest = os.path.abspath(path).split("/.zfs/", 1)
        return resolve(node or "/").rstrip("/") + "/.zfs/" + rest
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise MountError(_first_missing(os.path.abspath(path)), error.errno or 0) from error


def _first_missing(path: str) -> str:
    while path != "/" and not os.path.lexists(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


def _same(one: str, other: str) -> bool:
    left, right = os.stat(one), os.stat(other)
    return (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)


def _kernel_mounts() -> dict[int, tuple[int, str]]:
    """Of every real mount by its number: that of the mount it is on, and its mount point."""
    found = {}
    with open(f"{PROC}/self/mountinfo", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ", 5)
            found[int(words[0])] = int(words[1]), _unescape(words[4])
    return found


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def may_mount(state: State, fstype: str = "") -> bool:
    """Only root may, and in a jail with its rights; for some file systems it takes one more."""
    from sandbox.jails import current

    jail = current(state)
    if jail is None or not state.may_write:
        return state.may_write
    return jail.mounts_a(fstype) if fstype else jail.mounts


__all__ = ["INSIDE", "Mount", "MountError", "Table", "fsid", "may_mount", "plain", "resolve"]
