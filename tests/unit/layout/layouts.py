"""A layout with something of everything."""

from __future__ import annotations

from kopiatomic.layout.form import DatasetLayout, Key, Layout, PoolLayout
from kopiatomic.system.disks import Disk
from kopiatomic.system.pools import Group

DISK = Disk(
    "ada0",
    ("GPT 128", "1 efi 40 532480 efiboot0", "2 freebsd-boot 532520 1024 gptboot0",
     "3 freebsd-zfs 4728832 16240640 zfs0 [bootme]"),
)  # fmt: skip
POOL = PoolLayout(
    "zroot", {"ashift": "12", "comment": "it's ours"}, ("lz4_compress", "async_destroy"),
    (Group("", "mirror", ("/dev/gpt/zfs0", "/dev/gpt/zfs1")), Group("log", "", ("/dev/l",))),
    "zroot/ROOT/default",
)  # fmt: skip
DATASETS = (
    DatasetLayout("zroot", {"compression": "lz4", "mountpoint": "/zroot"}),
    DatasetLayout("zroot/ROOT", {"mountpoint": "none"}),
    DatasetLayout("zroot/ROOT/default", {"mountpoint": "/", "canmount": "noauto"}, mounted="/"),
    DatasetLayout("zroot/ROOT/old", {"mountpoint": "/", "canmount": "noauto"}),
    DatasetLayout("zroot/home", {"mountpoint": "/home", "org.x:note": "a b"}),
    DatasetLayout("zroot/home/ann", {"readonly": "on"}, omitted=("org.x:token",)),
    DatasetLayout("zroot/jail", {"jailed": "on", "mountpoint": "/data"}, mounted="/jails/a/data"),
    DatasetLayout("zroot/safe", {}, key=Key("aes-256-gcm", "passphrase", "prompt")),
    DatasetLayout("zroot/vm", {"volblocksize": "16384"}, size="1073741824"),
    DatasetLayout("zroot/was", {}, clone_of="zroot/home@then"),
)
LAYOUT = Layout(
    "host.example.org", "amd64", {"FreeBSD": "14.2-RELEASE", "ZFS": "2.2.6"}, (POOL,), DATASETS,
    (DISK,), ("/EFI/BOOT/BOOTX64.EFI", "/EFI/FREEBSD/LOADER.EFI"),
)  # fmt: skip


def with_dataset(*datasets: DatasetLayout) -> Layout:
    """Return a layout of one pool with these datasets."""
    pool = PoolLayout("t", {}, (), (Group("", "", ("/dev/t",)),))
    top = () if any(each.name == "t" for each in datasets) else (DatasetLayout("t", {}),)
    return Layout("h", "amd64", {}, (pool,), (*top, *datasets))
