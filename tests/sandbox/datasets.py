"""Pools, datasets, snapshots and their properties, as zfs(8) sees them."""

from __future__ import annotations

import errno
import os

from sandbox.jails import current
from sandbox.mounts import Mount, MountError, Table, fsid
from sandbox.state import State, new_guid, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# property: default; these are inherited
INHERITED = {
    "readonly": "off", "snapdir": "hidden", "atime": "on", "exec": "on", "setuid": "on",
    "compression": "on", "jailed": "off", "recordsize": "131072", "checksum": "on",
    "devices": "on", "keyformat": "none", "aclmode": "discard", "aclinherit": "restricted",
    "primarycache": "all", "sync": "standard", "copies": "1", "volmode": "default",
    "sharenfs": "off", "sharesmb": "off", "dedup": "off", "logbias": "latency",
    "snapdev": "hidden",
}
OWN = {"canmount": "on", "quota": "0", "reservation": "0", "refreservation": "0",
       "refquota": "0", "keylocation": "none"}
# Said when a file system is made, and never again.
ONCE = {"casesensitivity": "sensitive", "normalization": "none", "utf8only": "off"}
CHOICES = {
    "snapdir": ("hidden", "visible"), "canmount": ("on", "off", "noauto"),
    "readonly": ("on", "off"), "atime": ("on", "off"), "exec": ("on", "off"),
    "setuid": ("on", "off"), "jailed": ("on", "off"), "devices": ("on", "off"),
    "volmode": ("default", "full", "geom", "dev", "none"), "snapdev": ("hidden", "visible"),
}
READ_ONLY = (
    "type", "creation", "createtxg", "guid", "used", "available", "referenced", "refer",
    "compressratio", "mounted", "origin", "clones", "defer_destroy", "userrefs", "keystatus",
    "encryption", "encryptionroot", "written", "logicalused", "name", "volblocksize",
)
NUMERIC = ("used", "available", "referenced", "refer", "quota", "reservation", "refreservation",
           "recordsize", "volsize", "written", "logicalused")
# What a volume has not.
_OF_FILES = ("snapdir", "atime", "exec", "setuid", "recordsize", "jailed")
ALIASES = {"avail": "available", "refer": "referenced", "zoned": "jailed", "ratio": "compressratio"}
SIZE = 98304
AVAILABLE = 7806648320


class Dataset:
    """A file system or volume."""

    def __init__(self, row: tuple[int, str, str, int, int, int, int | None, int | None, int]):
        self.id, self.name, self.kind, self.creation, self.txg, self.guid = row[:6]
        self.origin, self.encroot, locked = row[6:]
        self.locked = bool(locked)

    @property
    def pool(self) -> str:
        return self.name.partition("/")[0]

    @property
    def parent(self) -> str:
        return self.name.rpartition("/")[0]


class Snapshot:
    """A snapshot of a dataset."""

    def __init__(self, of: Dataset, row: tuple[int, int, str, int, int, int, int]) -> None:
        self.of = of
        self.id, _, self.short, self.creation, self.txg, self.guid, defer = row
        self.defer = bool(defer)
        self.name = f"{of.name}@{self.short}"
        self.kind = "snapshot"


class World:
    """All of it, read at once: cheaper than asking for each."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.table = Table(state)
        self.reload()

    def reload(self) -> None:
        """Read everything anew after a change."""
        state = self.state
        query = "select name, altroot, readonly, full from pools where exported = 0"
        self.pools = {r[0]: r for r in state.rows(query)}
        columns = "id, name, kind, creation, txg, guid, origin, encroot, locked"
        found = map(Dataset, state.rows(f"select {columns} from datasets order by name"))
        self.datasets = {d.name: d for d in found if d.pool in self.pools}
        self.by_id = {d.id: d for d in self.datasets.values()}
        self.jail = current(state)
        if self.jail is not None:
            # The properties that come from above are known all the same.
            self.datasets = {n: d for n, d in self.datasets.items() if self.jail.sees(n)}
            pools = {d.pool for d in self.datasets.values()}
            self.pools = {name: row for name, row in self.pools.items() if name in pools}
        self.props: dict[int, dict[str, tuple[str, str]]] = {}
        for dataset, name, value, source in state.rows("select * from props"):
            self.props.setdefault(dataset, {})[name] = (value, source)
        self.mounts = self.table.all()
        self.mounted = {m.special for m in self.mounts if m.fstype == "zfs"}
        self._loaded: dict[str, list[Snapshot]] | None = None
        self._snapprops: dict[int, dict[str, tuple[str, str]]] | None = None
        self._holds: dict[int, int] | None = None
        self._roomless: set[int] | None = None

    def is_ours(self, what: Dataset) -> bool:
        """zfs_dozonecheck(), secpolicy_zfs(): whether a jail, if this is one, may change it."""
        if self.jail is None:
            return True
        # A volume inherits it, and does not show it.
        of = what if what.kind == "filesystem" else self.datasets[what.parent]
        zoned = self.value(of, "jailed")[0] == "on"
        return self.jail.owns(what.name) and zoned and self.jail.mounts

    # -- finding -----------------------------------------------------------------------------

    @property
    def snapshots(self) -> dict[str, list[Snapshot]]:
        """Snapshots by dataset, oldest first."""
        if self._loaded is None:
            self._loaded = {}
            query = ("select id, dataset, name, creation, txg, guid, defer from snapshots"
                     " order by txg, id")
            for row in self.state.rows(query):
                if row[1] in self.by_id and self.by_id[row[1]].name in self.datasets:
                    one = Snapshot(self.by_id[row[1]], row)
                    self._loaded.setdefault(one.of.name, []).append(one)
        return self._loaded

    @property
    def snapprops(self) -> dict[int, dict[str, tuple[str, str]]]:
        """User properties of snapshots, with where they come from."""
        if self._snapprops is None:
            self._snapprops = {}
            for number, name, *rest in self.state.rows("select * from snapprops"):
                self._snapprops.setdefault(number, {})[name] = rest[0], rest[1]
        return self._snapprops

    @property
    def holds(self) -> dict[int, int]:
        """Number of holds of snapshots that have some."""
        if self._holds is None:
            query = "select snapshot, count(*) from holds group by snapshot"
            self._holds = dict(self.state.rows(query))
        return self._holds

    def snapshot(self, name: str) -> Snapshot | None:
        """A snapshot by its whole name."""
        of, _, short = name.partition("@")
        return next((s for s in self.snapshots.get(of, []) if s.short == short), None)

    def below(self, name: str) -> list[Dataset]:
        """A dataset and all its descendants, by name."""
        return [d for n, d in self.datasets.items() if n == name or n.startswith(name + "/")]

    def children(self, name: str) -> list[Dataset]:
        """Descendants without the dataset itself."""
        return [d for d in self.below(name) if d.name != name]

    def clones(self, snapshot: Snapshot) -> list[str]:
        """Datasets that were cloned from it."""
        return [d.name for d in self.datasets.values() if d.origin == snapshot.id]

    def busy(self, snapshot: Snapshot) -> bool:
        """Whether it is mounted anywhere, also by having been looked at: ZFS's long hold."""
        return bool(self.table.of_snapshot(snapshot.id))

    def let_go(self, snapshots: Iterable[Snapshot]) -> None:
        """Unmount snapshots by force, as zfs destroy does before it looks; zfs_unmount_snap().

        One with a nullfs on it stays, and then is busy.
        """
        for snapshot in snapshots:
            for mount in self.table.of_snapshot(snapshot.id):
                try:  # noqa: SIM105
                    self.table.remove(mount, force=True)
                except MountError:
                    pass

    def roomless(self, what: Dataset) -> bool:
        """Whether a snapshot of it finds no room: a test says so, or what it has reserved."""
        if self._roomless is None:
            self._roomless = {row[0] for row in self.state.rows("select dataset from roomless")}
        reserved = size_of(self._own(what, "refreservation")[0])
        return what.id in self._roomless or reserved > AVAILABLE

    # -- properties --------------------------------------------------------------------------

    def value(self, what: Dataset | Snapshot, name: str) -> tuple[str, str]:
        """Value and source of a property; `-` and `-` for one that does not apply."""
        name = ALIASES.get(name, name)
        if isinstance(what, Snapshot):
            return self._of_snapshot(what, name)
        if name in READ_ONLY:
            value = self._computed(what, name)
            return value, "default" if (name, value) == ("encryption", "off") else "-"
        if name == "mountpoint":
            return self.mountpoint(what)
        if name in OWN:
            return self._own(what, name)
        if name in ONCE:
            if what.kind == "volume":
                return "-", "-"
            return self.props.get(what.id, {}).get(name, (ONCE[name], ""))[0], "-"
        if what.kind == "volume" and name == "volsize":
            return self.props.get(what.id, {}).get(name, ("0", ""))[0], "local"
        return self._inherited(what, name)

    def _own(self, what: Dataset, name: str) -> tuple[str, str]:
        if what.kind == "volume" and name in ("canmount", "quota"):
            return "-", "-"
        return self.props.get(what.id, {}).get(name, (OWN[name], "default"))

    def _inherited(self, what: Dataset, name: str) -> tuple[str, str]:
        if what.kind == "volume" and name in _OF_FILES:
            return "-", "-"
        if what.encroot is None and name == "keyformat":
            return "none", "default"
        if name == "keyformat":
            return self.props.get(what.encroot or 0, {}).get(name, ("passphrase", ""))[0], "-"
        if name == "readonly" and self.pools[what.pool][2]:
            return "on", "temporary"
        at: Dataset | None = what
        while at is not None:
            found = self.props.get(at.id, {}).get(name)
            if found and at is what:
                return found
            if found:
                return found[0], f"inherited from {at.name}"
            at = self.datasets.get(at.parent)
        return (INHERITED[name], "default") if name in INHERITED else ("-", "-")

    def mountpoint(self, what: Dataset) -> tuple[str, str]:
        """The property, with the pool's alternate root as zfs shows it."""
        if what.kind == "volume":
            return "-", "-"
        at: Dataset | None = what
        while at is not None:
            found = self.props.get(at.id, {}).get("mountpoint")
            if found or not at.parent:
                value, source = found or (f"/{at.name}", "default")
                return self._mountpoint_of(what, at, value, source)
            at = self.datasets.get(at.parent)
        return "-", "-"

    def _mountpoint_of(self, what: Dataset, at: Dataset, value: str, source: str
                       ) -> tuple[str, str]:
        if at is not what and source != "default":
            source = f"inherited from {at.name}"
        if value in ("none", "legacy"):
            return value, source
        value = value.rstrip("/") + what.name[len(at.name):]
        altroot = str(self.pools[what.pool][1])
        return (altroot + value).rstrip("/") or "/", source

    def _computed(self, what: Dataset, name: str) -> str:
        if name in ("used", "logicalused"):
            return str(SIZE * len(self.below(what.name)))
        if name == "origin":
            found = next((s for of in self.snapshots.values() for s in of if s.id == what.origin),
                         None)
            return found.name if found else "-"
        if name == "mounted":
            return "-" if what.kind == "volume" else "yes" if what.name in self.mounted else "no"
        locked = "unavailable" if what.locked else "available"
        root = self.by_id.get(what.encroot or 0)
        values = {
            "name": what.name, "type": what.kind, "creation": str(what.creation),
            "createtxg": str(what.txg), "guid": str(what.guid), "available": str(AVAILABLE),
            "referenced": str(SIZE), "written": str(SIZE), "compressratio": "1.00x",
            "keystatus": locked if what.encroot is not None else "-",
            "encryption": "aes-256-gcm" if what.encroot is not None else "off",
            "encryptionroot": root.name if root else "-",
            "volblocksize": "16384" if what.kind == "volume" else "-",
        }
        return values.get(name, "-")

    def _of_snapshot(self, what: Snapshot, name: str) -> tuple[str, str]:
        if ":" in name:
            own = self.snapprops.get(what.id, {}).get(name)
            if own is not None:
                return own
            value, source = self._inherited(what.of, name)
            # A snapshot inherits the user properties of its dataset.
            return value, f"inherited from {what.of.name}" if source == "local" else source
        values = {
            "name": what.name, "type": "snapshot", "creation": str(what.creation),
            "createtxg": str(what.txg), "guid": str(what.guid), "used": "0",
            "referenced": str(SIZE), "written": str(SIZE), "compressratio": "1.00x",
            "defer_destroy": "on" if what.defer else "off",
            "encryption": self._computed(what.of, "encryption"),
        }
        if name == "userrefs":
            return str(self.holds.get(what.id, 0)), "-"
        if name == "volsize" and what.of.kind == "volume":
            path = f"{self.state.store.snapshot(what.of.id, what.id)}/volume"
            return str(os.path.getsize(path)), "-"
        if name == "clones":
            return ",".join(self.clones(what)) or "-", "-"
        return values.get(name, "-"), "-"

    # -- mounting ----------------------------------------------------------------------------

    def flags(self, what: Dataset) -> frozenset[str]:
        """Mount flags that follow from properties."""
        flags = {"local", "nfsv4acls"}
        for name, value, flag in (("readonly", "on", "read-only"), ("atime", "off", "noatime"),
                                  ("exec", "off", "noexec"), ("setuid", "off", "nosuid")):
            if self.value(what, name)[0] == value:
                flags.add(flag)
        return frozenset(flags)

    def mount(self, what: Dataset, node: str, options: Iterable[str] = (),
              hidden: bool = False) -> Mount:
        """Mount a file system on an existing directory."""
        mount = Mount(what.name, node, "zfs", self.flags(what) | set(options), fsid(what.guid),
                      hidden=hidden, dataset=what.id)
        self.mounted.add(what.name)
        return self.table.add(self.state.store.dataset(what.id), mount)

    def why_not(self, what: Dataset) -> str:
        """Why `zfs mount` would refuse, or nothing."""
        point = self.mountpoint(what)[0]
        if point in ("none", "-"):
            return "no mountpoint set"
        if point == "legacy":
            return "legacy mountpoint\nuse mount(8) to mount this filesystem"
        if self.value(what, "canmount")[0] == "off":
            return "'canmount' property is set to 'off'"
        if what.locked:
            return "encryption key not loaded"
        if what.name in self.mounted:
            return "filesystem already mounted"
        return ""

    def mount_at_property(self, what: Dataset) -> None:
        """Mount where the property says, making the directory as ZFS does."""
        node = self.mountpoint(what)[0]
        os.makedirs(node, exist_ok=True)
        self.mount(what, os.path.realpath(node))

    def automatic(self, what: Dataset) -> bool:
        """Whether creating it, or `zfs mount -a`, mounts it."""
        return (what.kind == "filesystem" and self.value(what, "canmount")[0] == "on"
                and self.value(what, "jailed")[0] == ("on" if self.jail else "off")
                and self.is_ours(what) and not self.why_not(what))

    def mount_all(self) -> None:
        """What `zfs mount -a` does, parents before children."""
        found = [d for d in self.datasets.values() if self.automatic(d)]
        for dataset in sorted(found, key=lambda d: (self.mountpoint(d)[0], d.name)):
            self.mount_at_property(dataset)

    def unmount(self, what: Dataset, force: bool = False) -> bool:
        """Take it away from wherever it is mounted; its snapshots stay. Says if it was mounted.

        By the name that was written down when it was mounted, wherever that leads by now:
        libzfs's unmount_one() knows nothing else.
        """
        found = [m for m in reversed(self.table.all())
                 if m.fstype == "zfs" and m.dataset == what.id and not m.snapshot]
        for mount in found:
            try:
                self.table.unmount(mount.node, force)
            except MountError as error:
                raise MountError(mount.node, error.code) from error
        self.mounted.discard(what.name)
        return bool(found)

    # -- making ------------------------------------------------------------------------------

    def create(self, name: str, kind: str, props: dict[str, str], txg: int) -> Dataset:
        """Make a dataset; the caller has checked everything."""
        parent = self.datasets.get(name.rpartition("/")[0])
        number = self.state.run(
            "insert into datasets (name, kind, creation, txg, guid, encroot, locked)"
            " values (?, ?, ?, ?, ?, ?, 0)",
            name, kind, now(), txg, new_guid(), parent.encroot if parent else None)
        props = dict(props)
        if props.pop("encryption", "off") not in ("off", "inherit"):
            self.state.run("update datasets set encroot = id where id = ?", number)
        self.state.many("insert into props values (?, ?, ?, 'local')",
                        ((number, key, value) for key, value in props.items()))
        self.state.store.create(number)
        if kind == "volume":
            self.set_size(number, int(props["volsize"]))
        row = self.state.one("select id, name, kind, creation, txg, guid, origin, encroot, locked"
                             " from datasets where id = ?", number)
        made = Dataset(row)
        self.datasets[name] = self.by_id[number] = made
        self.props[number] = {key: (value, "local") for key, value in props.items()}
        return made

    def set_size(self, number: int, size: int) -> None:
        """Give a volume's file, made if need be, so many bytes."""
        with open(f"{self.state.store.dataset(number)}/volume", "ab") as file:
            file.truncate(size)

    def forget(self, what: Dataset) -> None:
        """Remove a dataset that is not mounted, with its snapshots."""
        snapshots = [(what.id, s.id) for s in self.snapshots.get(what.name, [])]
        self.drop(self.snapshots.get(what.name, []))
        self.state.run("delete from props where dataset = ?", what.id)
        self.state.run("delete from datasets where id = ?", what.id)
        self.state.run("delete from meta where key = ?", f"no device {what.id}")
        self.state.store.drop(snapshots)
        self.state.store.remove(what.id)
        self.datasets.pop(what.name, None)

    def take(self, wanted: list[tuple[Dataset, str]], props: dict[str, str], txg: int) -> None:
        """Make snapshots, all in one transaction group; the caller has checked everything."""
        pairs = []
        for dataset, short in wanted:
            number = self.note(dataset, short, txg)
            self.state.many("insert into snapprops (snapshot, name, value) values (?, ?, ?)",
                            ((number, key, value) for key, value in props.items()))
            pairs.append((dataset.id, number))
        self.state.store.take(pairs)

    def note(self, dataset: Dataset, short: str, txg: int) -> int:
        """Write down a snapshot whose files the caller has yet to take."""
        return self.state.run(
            "insert into snapshots (dataset, name, creation, txg, guid) values (?, ?, ?, ?, ?)",
            dataset.id, short, now(), txg, new_guid())

    def drop(self, unwanted: list[Snapshot]) -> None:
        """Forget snapshots; their files are the caller's to drop, after the commit."""
        for table, column in (("snapshots", "id"), ("snapprops", "snapshot"),
                              ("holds", "snapshot"), ("mounts", "snapshot")):
            self.state.many(f"delete from {table} where {column} = ?",
                            ((s.id,) for s in unwanted))


def cannot_unmount(error: MountError) -> str:
    """What zfs(8) and zpool(8) say of it; libzfs's unmount_one()."""
    reason = "pool or dataset is busy" if error.code == errno.EBUSY else "unmount failed"
    return f"cannot unmount '{error.path}': {reason}"


def size_of(size: str) -> int:
    """A size with or without its unit; `none` is 0."""
    if size[-1:].upper() in "KMGTP":
        return int(float(size[:-1]) * 1024 ** ("KMGTP".index(size[-1].upper()) + 1))
    return int(size) if size.isdigit() else 0


__all__ = ["Dataset", "MountError", "Snapshot", "World", "cannot_unmount", "size_of"]
