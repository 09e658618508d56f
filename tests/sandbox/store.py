"""Where the files of datasets and snapshots really are: btrfs subvolumes or plain copies."""

from __future__ import annotations

import os
import struct

SUBVOL_CREATE = 0x5000940E
SUBVOL_DESTROY = 0x5000940F
SNAP_CREATE_V2 = 0x50009417
SUBVOL_RDONLY = 2
# One btrfs transaction takes several snapshots when they are asked for at the same time.
WORKERS = 16


class Store:
    """Files of datasets by number, and of their snapshots by a number of their own.

    `base/data/N` for datasets, `base/snap/N/M` for snapshots.
    """

    faithful = False

    def __init__(self, base: str) -> None:
        self.base = base

    def dataset(self, number: int) -> str:
        """Where the files of a dataset are."""
        return f"{self.base}/data/{number}"

    def snapshot(self, dataset: int, number: int) -> str:
        """Where the files of a snapshot are."""
        return f"{self.base}/snap/{dataset}/{number}"

    def create(self, number: int) -> None:
        """Make an empty dataset."""
        raise NotImplementedError

    def remove(self, number: int) -> None:
        """Remove a dataset and all in it."""
        raise NotImplementedError

    def take(self, wanted: list[tuple[int, int]]) -> None:
        """Make snapshots, given as dataset and number."""
        raise NotImplementedError

    def drop(self, unwanted: list[tuple[int, int]]) -> None:
        """Remove snapshots."""
        raise NotImplementedError

    def clone(self, dataset: int, snapshot: int, number: int) -> None:
        """Make a dataset of a snapshot."""
        raise NotImplementedError

    def rollback(self, dataset: int, snapshot: int) -> None:
        """Give a dataset the files of a snapshot, in place: it may be mounted."""
        _Copier().again(self.snapshot(dataset, snapshot), self.dataset(dataset))


class Btrfs(Store):
    """Subvolumes: inode numbers, times and link counts of a snapshot are those of the files."""

    faithful = True

    def create(self, number: int) -> None:
        if os.path.exists(self.dataset(number)):
            _ioctl(f"{self.base}/data", SUBVOL_DESTROY, _args(str(number)))
        _ioctl(f"{self.base}/data", SUBVOL_CREATE, _args(str(number)))
        os.makedirs(f"{self.base}/snap/{number}", exist_ok=True)
        os.chmod(self.dataset(number), 0o755)

    def remove(self, number: int) -> None:
        _ioctl(f"{self.base}/data", SUBVOL_DESTROY, _args(str(number)))

    def take(self, wanted: list[tuple[int, int]]) -> None:
        if len(wanted) < 8:
            for pair in wanted:
                self._take_one(pair)
            return
        import threading

        errors: list[OSError] = []

        def work(first: int) -> None:
            try:
                for pair in wanted[first::WORKERS]:
                    self._take_one(pair)
            except OSError as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _take_one(self, pair: tuple[int, int]) -> None:
        dataset, number = pair
        if os.path.exists(self.snapshot(dataset, number)):
            # Of a command that was killed before it could write down what it had made.
            self.drop([pair])
        self._snapshot(self.dataset(dataset), f"{self.base}/snap/{dataset}", number, SUBVOL_RDONLY)

    def drop(self, unwanted: list[tuple[int, int]]) -> None:
        for dataset, number in unwanted:
            _ioctl(f"{self.base}/snap/{dataset}", SUBVOL_DESTROY, _args(str(number)))

    def clone(self, dataset: int, snapshot: int, number: int) -> None:
        self._snapshot(self.snapshot(dataset, snapshot), f"{self.base}/data", number, 0)
        os.makedirs(f"{self.base}/snap/{number}", exist_ok=True)

    def _snapshot(self, source: str, directory: str, number: int, flags: int) -> None:
        descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        try:
            header = struct.pack("=qQQ4Q", descriptor, 0, flags, 0, 0, 0, 0)
            _ioctl(directory, SNAP_CREATE_V2, (header + str(number).encode()).ljust(4096, b"\0"))
        finally:
            os.close(descriptor)


class Copies(Store):
    """Plain copies, for a Linux without btrfs: inode numbers and change times differ."""

    faithful = False

    def create(self, number: int) -> None:
        os.makedirs(self.dataset(number), exist_ok=True)
        os.makedirs(f"{self.base}/snap/{number}", exist_ok=True)

    def remove(self, number: int) -> None:
        _remove_tree(self.dataset(number))

    def take(self, wanted: list[tuple[int, int]]) -> None:
        for dataset, number in wanted:
            if os.path.exists(self.snapshot(dataset, number)):
                _remove_tree(self.snapshot(dataset, number))
            copy_tree(self.dataset(dataset), self.snapshot(dataset, number))

    def drop(self, unwanted: list[tuple[int, int]]) -> None:
        for dataset, number in unwanted:
            _remove_tree(self.snapshot(dataset, number))

    def clone(self, dataset: int, snapshot: int, number: int) -> None:
        copy_tree(self.snapshot(dataset, snapshot), self.dataset(number))
        os.makedirs(f"{self.base}/snap/{number}", exist_ok=True)


def open_store(kind: str, base: str) -> Store:
    """The store of a host; kind is `btrfs` or `copies`."""
    return Btrfs(base) if kind == "btrfs" else Copies(base)


def _args(name: str) -> bytes:
    return struct.pack("=q", 0) + name.encode().ljust(4088, b"\0")


def _ioctl(directory: str, request: int, data: bytes) -> None:
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # A mutable buffer makes python release its lock, so that threads overlap.
        fcntl.ioctl(descriptor, request, bytearray(data))
    finally:
        os.close(descriptor)


def _remove_tree(path: str) -> None:
    """Remove a copy; the store itself has no mounts inside, so this stays in it."""
    import shutil

    shutil.rmtree(path)


def copy_tree(source: str, target: str) -> None:
    """Copy a tree with modes, owners, times, hard links, holes, fifos, devices and symlinks."""
    _Copier().directory(source, target)


class _Copier:
    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], str] = {}

    def directory(self, source: str, target: str) -> None:
        os.mkdir(target)
        with os.scandir(source) as entries:
            for entry in entries:
                self.entry(entry, f"{target}/{entry.name}")
        self.attributes(source, target, os.lstat(source))

    def again(self, source: str, target: str) -> None:
        """Make a directory that is there already equal to another; keeps those in both."""
        with os.scandir(source) as entries:
            wanted = {entry.name: entry for entry in entries}
        with os.scandir(target) as entries:
            present = list(entries)
        for old in present:
            both = old.name in wanted and wanted[old.name].is_dir(follow_symlinks=False)
            if old.is_dir(follow_symlinks=False) and not both:
                _remove_tree(old.path)
            elif not old.is_dir(follow_symlinks=False):
                os.unlink(old.path)
        for name, entry in wanted.items():
            if entry.is_dir(follow_symlinks=False) and os.path.isdir(f"{target}/{name}"):
                self.again(entry.path, f"{target}/{name}")
            else:
                self.entry(entry, f"{target}/{name}")
        self.attributes(source, target, os.lstat(source))

    def entry(self, entry: os.DirEntry[str], target: str) -> None:
        status = entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            self.directory(entry.path, target)
            return
        key = (status.st_dev, status.st_ino)
        if key in self.seen:
            os.link(self.seen[key], target, follow_symlinks=False)
            return
        if status.st_nlink > 1:
            self.seen[key] = target
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_file(follow_symlinks=False):
            self.file(entry.path, target, status.st_size)
        else:
            os.mknod(target, status.st_mode, status.st_rdev)
        self.attributes(entry.path, target, status)

    def attributes(self, source: str, target: str, status: os.stat_result) -> None:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        if status.st_mode & 0o170000 != 0o120000:
            os.chmod(target, status.st_mode & 0o7777)
        for name in os.listxattr(source, follow_symlinks=False):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(target, ns=times, follow_symlinks=False)

    def file(self, source: str, target: str, size: int) -> None:
        with open(source, "rb", 0) as reader, open(target, "wb", 0) as writer:
            position = 0
            while position < size:
                try:
                    position = os.lseek(reader.fileno(), position, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(reader.fileno(), position, os.SEEK_HOLE)
                os.lseek(reader.fileno(), position, os.SEEK_SET)
                os.lseek(writer.fileno(), position, os.SEEK_SET)
                while position < end:
                    data = reader.read(min(end - position, 1 << 20))
                    if not data:
                        break
                    position += writer.write(data)
            writer.truncate(size)
