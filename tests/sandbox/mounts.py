"""The mount table and the operations on it; every visible mount is a real Linux mount.

Not imitated: the `.zfs` directory itself, since Linux offers no hidden directory. Only
mount_nullfs and `mount -t nullfs` understand a source below `MOUNT POINT/.zfs/snapshot/NAME`;
`ls /home/.zfs/snapshot` finds nothing.
"""

from __future__ import annotations

import errno
import os

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
PENDING = -1


class MountError(Exception):
    """A refused operation: the path it is about and an errno."""

    def __init__(self, path: str, code: int) -> None:
        super().__init__(path, code)
        self.path = path
        self.code = code

    @property
    def text(self) -> str:
        """As FreeBSD words it, which is not always how Linux does."""
        words = {errno.EBUSY: "Device busy", errno.EDEADLK: "Resource deadlock avoided"}
        return words.get(self.code) or os.strerror(self.code)


class Mount:
    """One line of the mount table. (No dataclass: that import costs a stand-in 15 ms.)"""

    def __init__(self, special: str, node: str, fstype: str, flags: frozenset[str], fsid: str, *,
                 number: int = 0, hidden: bool = False, dataset: int | None = None,
                 snapshot: int | None = None, lower: int | None = None,
                 kernel: int = PENDING) -> None:
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

    @property
    def options(self) -> list[str]:
        """The flags as `mount` prints them."""
        return [name for name, _ in NAMES if name in self.flags]

    @property
    def fstab_options(self) -> str:
        """The flags as `mount -p` prints them."""
        first = "ro" if "read-only" in self.flags else "rw"
        return ",".join([first] + [name for name in FSTAB_ORDER if name in self.flags])


class Table:
    """The mount table of a host whose state is locked."""

    def __init__(self, state: State) -> None:
        self.state = state
        if state.may_write:
            self._reconcile()

    def all(self) -> list[Mount]:
        """In the order in which things were mounted."""
        query = ("select id, special, node, fstype, flags, hidden, fsid, dataset, snapshot, lower,"
                 " kernel from mounts order by id")
        return [
            Mount(r[1], r[2], r[3], frozenset(r[4].split()), r[6], number=r[0], hidden=bool(r[5]),
                  dataset=r[7], snapshot=r[8], lower=r[9], kernel=r[10])
            for r in self.state.rows(query)
        ]

    def holding(self, path: str) -> Mount | None:
        """The mount that an existing path is on, asked of the kernel."""
        from sandbox.kernel import mount_id

        number = mount_id(path, PROC)
        return next((m for m in reversed(self.all()) if m.kernel == number), None)

    def add(self, source: str, mount: Mount, rec: bool = False, fstype: str = "") -> Mount:
        """Mount source at mount.node for real and write it down.

        The line is written first, so that a stand-in killed half way leaves nothing unknown.
        """
        from sandbox import kernel

        number = self.insert(mount)
        try:
            if fstype:
                kernel.mount(fstype, mount.node, fstype)
            else:
                kernel.bind(source, mount.node, linux_flags(mount.flags, rec))
        except OSError as error:
            self.state.run("delete from mounts where id = ?", number)
            raise MountError(mount.node, error.errno or 0) from error
        mount.id = number
        mount.kernel = kernel.mount_id(mount.node, PROC)
        self.state.run("update mounts set kernel = ? where id = ?", mount.kernel, number)
        return mount

    def remove(self, mount: Mount, force: bool = False) -> None:
        """Unmount for real and forget the line."""
        from sandbox import kernel

        mounted = self.all()
        if mount.kernel != AUTOMOUNT:
            lowers = {mount.id} | {m.id for m in self._automounts(mount, mounted)}
            if not force and any(m.lower in lowers and m.fstype == "nullfs" for m in mounted):
                raise MountError(mount.node, errno.EBUSY)
            if kernel.mount_id(mount.node, PROC) != mount.kernel:
                raise MountError(mount.node, errno.EBUSY)
            deep = force or mount.special == "/compat/linux"
            try:
                kernel.umount(mount.node, kernel.MNT_DETACH if deep else 0)
            except OSError as error:
                raise MountError(mount.node, error.errno or 0) from error
            for automount in self._automounts(mount, mounted):
                self.state.run("delete from mounts where id = ?", automount.id)
        elif any(m.lower == mount.id for m in mounted):
            raise MountError(mount.node, errno.EBUSY)
        self.state.run("delete from mounts where id = ?", mount.id)

    def _automounts(self, mount: Mount, mounted: list[Mount]) -> list[Mount]:
        if mount.fstype != "zfs":
            return []
        return [m for m in mounted if m.kernel == AUTOMOUNT and m.lower == mount.id]

    def insert(self, mount: Mount) -> int:
        """Write a line of the table down."""
        return self.state.run(
            "insert into mounts (special, node, fstype, flags, hidden, fsid, dataset, snapshot,"
            " lower, kernel) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            mount.special, mount.node, mount.fstype, " ".join(sorted(mount.flags)),
            int(mount.hidden), mount.fsid, mount.dataset, mount.snapshot, mount.lower, mount.kernel)

    def _reconcile(self) -> None:
        """Bring the table in line with the kernel, after a stand-in was killed half way."""
        kernel = _kernel_mounts()
        known = {m.kernel for m in self.all()}
        for mount in self.all():
            if mount.kernel == PENDING:
                fresh = [n for n, node in kernel.items() if node == mount.node and n not in known]
                if fresh:
                    self.state.run("update mounts set kernel = ? where id = ?", fresh[0], mount.id)
                    continue
            if mount.kernel != AUTOMOUNT and mount.kernel not in kernel:
                self.state.run("delete from mounts where id = ?", mount.id)

    # -- kinds of mounts ---------------------------------------------------------------------

    def nullfs(self, source: str, target: str, options: frozenset[str]) -> Mount:
        """mount_nullfs: a view of source on target, both absolute and free of symlinks."""
        linux, lower = self._nullfs_source(source)
        over = self.holding(target)
        if over and over.fstype == "nullfs" and _same(linux, target):
            raise MountError(target, errno.EDEADLK)
        number = int(self.state.meta("fsid")) + 1
        self.state.set_meta("fsid", str(number))
        flags = options | (lower.flags if lower else frozenset())
        hidden = bool(lower and lower.hidden)
        mount = Mount(source, target, "nullfs", flags, f"{number:02x}ff002929000000", hidden=hidden,
                      snapshot=lower.snapshot if lower else None,
                      lower=lower.id if lower else None)
        # The Linux userland is many Linux mounts, but one mount of the fake host.
        return self.add(linux, mount, rec=source == "/compat/linux")

    def _nullfs_source(self, source: str) -> tuple[str, Mount | None]:
        if CONTROL not in source + "/":
            return source, self.holding(source)
        node, rest = (source + "/").split(CONTROL, 1)
        mount = self.holding(node or "/")
        name, _, inside = rest.rstrip("/").partition("/")
        if mount is None or mount.fstype != "zfs" or mount.node != (node or "/") or mount.snapshot:
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

    def _automount(self, mount: Mount, name: str, snapshot: int, guid: int) -> Mount:
        """The snapshot itself, mounted where it was asked for, until it is destroyed."""
        node = f"{mount.node}{CONTROL}{name}"
        for known in self.all():
            if known.kernel == AUTOMOUNT and known.snapshot == snapshot and known.node == node:
                return known
        flags = frozenset({"local", "noatime", "nosuid", "read-only", "nfsv4acls"})
        new = Mount(f"{mount.special}@{name}", node, "zfs", flags, fsid(guid), hidden=True,
                    dataset=mount.dataset, snapshot=snapshot, lower=mount.id, kernel=AUTOMOUNT)
        new.id = self.insert(new)
        return new

    def devfs(self, target: str, ruleset: str) -> Mount:
        """mount -t devfs: all devices, or with a jail's ruleset a few."""
        kind = "full" if ruleset in ("", "0") else "jail"
        mount = plain("devfs", target, "devfs", frozenset())
        return self.add(f"{self.state.base}/dev/{kind}", mount)

    def special(self, special: str, target: str, fstype: str, options: frozenset[str]) -> Mount:
        """tmpfs for real; procfs and its like as an empty directory."""
        flags = options | (frozenset({"local"}) if fstype in ("tmpfs", "procfs") else frozenset())
        return self.add(special, plain(special, target, fstype, flags), fstype="tmpfs")


def plain(special: str, node: str, fstype: str, flags: frozenset[str]) -> Mount:
    """A mount of something that is no dataset."""
    number = int.from_bytes(os.urandom(7), "big") << 8
    return Mount(special, node, fstype, flags, fsid(number))


def fsid(guid: int) -> str:
    """A file system id that looks like FreeBSD's."""
    return f"{guid & 0xFFFFFFFFFFFFFFFF:016x}"


def linux_flags(flags: frozenset[str], rec: bool = False) -> int:
    """What of the flags the Linux kernel can enforce."""
    from sandbox import kernel

    numbers = {"read-only": kernel.MS_RDONLY, "nosuid": kernel.MS_NOSUID,
               "noexec": kernel.MS_NOEXEC, "noatime": kernel.MS_NOATIME}
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


def _kernel_mounts() -> dict[int, str]:
    """Number and mount point of every real mount."""
    found = {}
    with open(f"{PROC}/self/mountinfo", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ", 5)
            found[int(words[0])] = _unescape(words[4])
    return found


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def may_mount(state: State) -> bool:
    """Only root outside of a jail may."""
    return state.may_write and not state.flag("jailed")


__all__ = ["INSIDE", "Mount", "MountError", "Table", "fsid", "may_mount", "plain", "resolve"]
