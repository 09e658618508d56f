"""From an empty disk, as the manual has it: all of it short of the boot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support import tree
from support.machine import BASE, Machine, Sandbox, shell

from host.anew import (
    ALTROOT,
    BY_SED,
    LATER,
    PROGRAMS,
    back_up,
    dump,
    names,
    properties,
    restore,
)  # fmt: skip
from host.conftest import Repository

EFI = "/tmp/efi"  # where the commands of a layout mount it
POOL, LABEL = "ktc", "ktzfs"
KEY = f"/tmp/{POOL}_raw.key"
FILES = ("gptzfsboot", "pmbr", "loader.efi")
BY_CLIENT = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in PROGRAMS]


def boot_files(machine: Machine) -> None:
    """Put into the sandbox what FreeBSD's base has for booting."""
    for name in FILES:
        path = machine.path(f"/boot/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)


# The disk of a pool of the tests' own, onto another one


@pytest.fixture
def medium(machine: Machine) -> Iterator[Machine]:
    """The machine as the installation medium would be: nothing of ours in the way in /tmp."""
    machine.layouts = True
    if machine.is_sandbox:
        boot_files(machine)
    # Nothing of the machine's own is used there, or removed.
    assert not machine.path(EFI).exists()
    assert not machine.path(KEY).exists()
    try:
        yield machine
    finally:
        for each in (EFI, f"{BASE}/efi"):
            machine.run(["umount", "-f", each])
        machine.run(["rmdir", EFI])
        machine.path(KEY).unlink(missing_ok=True)


def table(machine: Machine) -> str:
    """Return partitions as the installer makes them, for gpart(8) restore."""
    rows = ["freebsd-swap 75776 16384", f"freebsd-zfs 92160 450560 {LABEL} [bootme]"]
    if machine.path("/boot/loader.efi").exists():
        rows.insert(0, "efi 2048 73728 ktefi")
    if all(machine.path(f"/boot/{each}").exists() for each in ("pmbr", "gptzfsboot")):
        rows.insert(0, "freebsd-boot 40 1024 ktboot")
    return "".join(f"{line}\n" for line in (
        "GPT 128", *(f"{index} {row}" for index, row in enumerate(rows, 1))
    ))  # fmt: skip


def efi_partition(machine: Machine, disk: str) -> str:
    """Return the device of the partition for EFI, empty if there is none."""
    rows = machine.run(["gpart", "backup", disk]).stdout.splitlines()[1:]
    found = [line.split()[0] for line in rows if line.split()[1] == "efi"]
    return f"/dev/{disk}p{found[0]}" if found else ""


def loaders(machine: Machine, disk: str) -> dict[str, bytes | None]:
    """Return what the partition for EFI holds."""
    device = efi_partition(machine, disk)
    if not device:
        return {}
    shell(machine, f"mkdir -p {BASE}/efi; mount -t msdosfs {device} {BASE}/efi")
    try:
        return names(machine.path(f"{BASE}/efi"))
    finally:
        shell(machine, f"umount {BASE}/efi")


MUCH = f"""
zfs create -o mountpoint=none {POOL}/ROOT
zfs create -o mountpoint={BASE}/root -o canmount=noauto {POOL}/ROOT/default
zfs create -o mountpoint={BASE}/root -o canmount=noauto {POOL}/ROOT/old
zpool set bootfs={POOL}/ROOT/default {POOL}
zfs mount {POOL}/ROOT/default
zfs create -o mountpoint={BASE}/home -o compression=gzip -o atime=off {POOL}/home
zfs create -o quota=104857600 {POOL}/home/ann
zfs create -o mountpoint={BASE}/var -o canmount=off {POOL}/var
zfs create -o recordsize=16384 -o exec=off -o org.test:note="it's mine" {POOL}/var/db
zfs create -s -V 16777216 {POOL}/vol
echo 'correct horse' |
    zfs create -o encryption=on -o keyformat=passphrase -o mountpoint={BASE}/safe {POOL}/safe
zfs create -o encryption=on -o keyformat=raw -o keylocation=file://{KEY} {POOL}/raw
mkdir -p {BASE}/root/etc
echo 'hostname="lost"' > {BASE}/root/etc/rc.conf
echo db > {BASE}/var/db/file
echo secret > {BASE}/safe/file
echo raw > {BASE}/{POOL}/raw/file
zfs set readonly=on {POOL}/var/db
"""
VOLUME, IMAGE = f"/dev/zvol/{POOL}/vol", bytes(range(256)) * 8192
PLACES = ("root", "home", "var/db", "safe", POOL)


def installed(machine: Machine) -> str:
    """Make a disk as an installer does, with a pool of many kinds of datasets; return its name."""
    disk = machine.make_disk(300)
    lines = table(machine)
    shell(machine, f"gpart restore -l {disk} <<'END'\n{lines}END")
    swap = next(line.split()[0] for line in lines.splitlines() if "freebsd-swap" in line)
    shell(machine, f"gpart modify -i {swap} -l 'kt swap' {disk}")
    machine.path(KEY).write_bytes(bytes(range(32)))
    machine.make_pool(POOL, f"/dev/gpt/{LABEL}")
    shell(machine, MUCH)
    machine.path(f"{BASE}/image").write_bytes(IMAGE)
    shell(machine, f"dd if={BASE}/image of={VOLUME} bs=65536 conv=notrunc")
    for name in ("home", "home/ann"):
        tree.fill(machine.path(f"{BASE}/{name}"))
    return disk


def make_efi_partition(machine: Machine, disk: str) -> None:
    """Format it, and put there what firmware starts, under both names."""
    device = efi_partition(machine, disk)
    if device:
        shell(machine, f"""
            newfs_msdos -F 32 -c 1 {device}
            mkdir -p {BASE}/efi; mount -t msdosfs {device} {BASE}/efi
            mkdir -p {BASE}/efi/EFI/BOOT {BASE}/efi/EFI/freebsd
            cp /boot/loader.efi {BASE}/efi/EFI/BOOT/BOOTX64.EFI
            cp /boot/loader.efi {BASE}/efi/EFI/freebsd/loader.efi
        """)


def settings(machine: Machine) -> list[str]:
    """Return what is set on the datasets, but for where a key is read, which is another place."""
    lines = properties(machine, POOL).splitlines()
    return [line for line in lines if "\tkeylocation\t" not in line]


def files(client: str, top: Path) -> dict[str, object]:
    """Return what a client restores below a directory."""
    kept = {"symlink_times": False} if client == "restic" else None
    found = {place: tree.picture(top / place, **kept) if kept else names(top / place)
             for place in PLACES}  # fmt: skip
    return dict(found)


def restore_volume(made: Repository) -> None:
    """Write it into its device, as the manual has it for restic(1) and kopia."""
    out = f"{made.directory}/volume"
    if made.client == "restic":
        shell(made.machine, f"restic dump --path {VOLUME} latest {VOLUME} > {out}",
              env=made.environment)  # fmt: skip
    else:
        made("restore", f"{VOLUME}/vol", out)
    shell(made.machine, f"dd if={out} of={VOLUME} bs=65536 conv=notrunc")


def in_volume(machine: Machine) -> bool:
    """Say whether the volume begins with what was written there."""
    shell(machine, f"dd if={VOLUME} of={BASE}/image bs=65536 count={len(IMAGE) // 65536}")
    return machine.path(f"{BASE}/image").read_bytes() == IMAGE


@pytest.mark.parametrize("client", BY_CLIENT)
def test_a_disk_is_made_anew(medium: Machine, request: pytest.FixtureRequest, client: str):
    repository: Repository = request.getfixturevalue(client)
    place = repository.directory
    disk = installed(medium)
    make_efi_partition(medium, disk)
    back_up(repository, "-r", "--volumes", POOL)
    shell(medium, f"if [ -d {BASE}/efi ]; then umount {BASE}/efi; fi")
    started = loaders(medium, disk)
    expected = files(client, medium.path(BASE))
    partitions, before = medium.run(["gpart", "backup", disk]).stdout, settings(medium)
    # The disk is lost. The empty one has another name and is larger.
    empty = medium.make_disk(310)
    shell(medium, f"zpool destroy {POOL}; mdconfig -d -u {disk}")
    medium.path(KEY).unlink()

    medium.path(f"{place}/layout.json").write_text(dump(repository))
    shell(medium, BY_SED.format(place))
    script = medium.path(f"{place}/layout.sh")
    script.write_text(re.sub(rf"\b{disk}(?!\d)", empty, script.read_text()))
    medium.path(KEY).write_bytes(bytes(reversed(range(32))))
    make = f"echo 'a new passphrase' | ALTROOT={ALTROOT} sh {place}/layout.sh"
    shell(medium, f"mkdir {ALTROOT}; {make}")
    restore(repository, ALTROOT)
    assert not in_volume(medium)
    restore_volume(repository)
    shell(medium, LATER.format(place))

    assert medium.run(["gpart", "backup", empty]).stdout == partitions
    assert loaders(medium, empty) == started
    boots = medium.run(["zpool", "get", "-H", "-o", "value", "bootfs", POOL]).stdout
    assert boots == f"{POOL}/ROOT/default\n"
    assert files(client, medium.path(f"{ALTROOT}{BASE}")) == expected
    # Nothing is done twice: the disk has partitions now.
    again = medium.run(["/bin/sh", "-c", make])
    assert again.returncode != 0
    assert again.stderr == f"gpart: geom '{empty}': File exists\n"
    # As after the boot that follows, which asks for the passphrase.
    shell(medium, f"""
        zpool export {POOL}; zpool import -d /dev/gpt {POOL}
        zfs mount {POOL}/ROOT/default
        echo 'a new passphrase' | zfs load-key {POOL}/safe; zfs load-key {POOL}/raw
        zfs mount {POOL}/safe; zfs mount {POOL}/raw
    """)
    assert settings(medium) == before
    assert in_volume(medium)
    assert files(client, medium.path(BASE)) == expected


# A whole machine, onto an empty disk of another


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Sandbox]:
    """The machine that will be lost, as FreeBSD's installer lays it out."""
    made = Sandbox(tmp_path / "lost", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(made.host)
        made.layouts = True
        shell(
            made,
            """
            zpool create -m /backup backup /dev/ada1
            zfs create zroot/home/ann; echo mine > /home/ann/file
            echo 'correct horse' |
                zfs create -o encryption=on -o keyformat=passphrase -o mountpoint=/safe zroot/safe
            zfs create -o mountpoint=/ -o canmount=noauto zroot/ROOT/old
            echo 'hostname="lost"' > /etc/rc.conf
            """,
        )
        yield made
    finally:
        made.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Sandbox]:
    """A machine with empty disks, as the installation medium has booted it."""
    made = Sandbox(tmp_path / "empty")
    try:
        boot_files(made)
        yield made
    finally:
        made.close()


@pytest.mark.linux(reason="no test owns the / of a real machine")
@pytest.mark.parametrize("client", BY_CLIENT)
def test_from_an_empty_disk(lost: Sandbox, empty: Sandbox, client: str):
    environment = {
        "RESTIC_REPOSITORY": "/backup/restic", "RESTIC_PASSWORD": "correct horse",
        "KOPIA_PASSWORD": "correct horse", "KOPIA_CHECK_FOR_UPDATES": "false",
    }  # fmt: skip
    made = Repository(lost, client, "/backup", environment)
    if client == "restic":
        made("init")
    else:
        made("repository", "create", "filesystem", "--path", "/backup/kopia")
    excludes = ["-o", "--exclude=/compat/linux/*"] if client == "restic" else []
    if client == "kopia":
        made("policy", "set", "/", "--add-ignore=/compat/linux/*")
    back_up(made, "-a", "-x", "backup", "--live", "/backup", "--live", "/compat/linux", *excludes)
    picture = names(lost.path("/home"))
    shutil.copytree(lost.path("/backup") / client, empty.path("/backup") / client)

    there = Repository(empty, client, "/backup", environment)
    if client == "kopia":
        host = lost.run(["hostname"]).stdout.strip().partition(".")[0].lower()
        there(
            "repository", "connect", "filesystem", "--path", "/backup/kopia",
            "--override-hostname", host, "--override-username", "root",
        )  # fmt: skip
    empty.path("/tmp/layout.json").write_text(dump(there))
    shell(empty, BY_SED.format("/tmp"))
    shell(empty, "echo 'a new passphrase' | sh /tmp/layout.sh")
    restore(there, "/mnt")
    shell(empty, LATER.format("/tmp"))

    table = lost.run(["gpart", "backup", "ada0"]).stdout
    assert empty.run(["gpart", "backup", "ada0"]).stdout == table
    assert empty.run(["zpool", "get", "-H", "-o", "value", "bootfs", "zroot"]).stdout == (
        "zroot/ROOT/default\n"
    )
    mounted = shell(empty, "zfs list -Hp -o name,mounted -r zroot").stdout
    # The key of the dataset that was encrypted is a new one; the other environment is empty.
    assert "zroot/safe\tyes" in mounted
    assert "zroot/ROOT/old\tno" in mounted
    assert names(empty.path("/mnt/home")) == picture
    assert empty.path("/mnt/etc/rc.conf").read_text() == 'hostname="lost"\n'
    # Nothing is done twice: the disk has partitions now.
    again = empty.run(["sh", "/tmp/layout.sh"])
    assert again.returncode != 0
    assert again.stderr == "gpart: geom 'ada0': File exists\n"
    shell(empty, "cd /; zpool export zroot")
