"""Nights of a machine as FreeBSD's installer lays it out, with what comes to such a machine.

It has two boot environments, a volume, /boot/efi and a thin jail, is backed up as a whole to
a pool of its own, and is looked after in weekly mails.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sandbox import layouts

from support import clients, nights, tree
from support.machine import Sandbox, shell

SECRET = "correct-horse-battery"
ENV_FILE = "/usr/local/etc/kopiatomic/restic.env"

PERIODIC_CONF = f"""
daily_restomic_enable="YES"
daily_restomic_all="YES"
daily_restomic_exclude="backup zroot/var/crash"
daily_restomic_live="/backup"
daily_restomic_env_file="{ENV_FILE}"
weekly_upkeep_restomic_enable="YES"
weekly_upkeep_restomic_verify="5"
weekly_upkeep_restomic_forget="--keep-daily 7"
weekly_upkeep_restomic_prune="YES"
weekly_drill_restomic_enable="YES"
daily_status_restomic_enable="YES"
security_status_kopiatomic_enable="YES"
"""


def create(directory: Path) -> Sandbox:
    """Make the machine, with a repository, and enable the jobs; no night has passed yet."""
    machine = Sandbox(directory, root_dataset="zroot/ROOT/default")
    layouts.installer(machine.host)
    client = clients.restic()
    if client is not None:
        # The sandbox's programs come from the Linux machine, which is not in the view.
        place = machine.path("/usr/local/bin/restic")
        place.unlink()
        shutil.copy(client, place)
    machine.install_periodic()
    shell(
        machine,
        """
        zfs create -o mountpoint=/ -o canmount=noauto zroot/ROOT/14.1
        zfs create -V 16m zroot/vm
        mkdir -p /boot/efi; mount -t msdosfs /dev/gpt/efiboot0 /boot/efi
        zfs create -o mountpoint=/usr/local/jails zroot/jails
        zfs create zroot/jails/template
        mkdir -p /usr/local/jails/template/bin /usr/local/jails/thin/base
        mount_nullfs -o ro /usr/local/jails/template /usr/local/jails/thin/base
        zfs create zroot/home/ada; zfs create zroot/home/ben
        zpool create -m /backup backup /dev/vtbd9
        mkdir -p /usr/local/etc/kopiatomic
        """,
    )
    tree.fill(machine.path("/home/ada"))
    tree.fill(machine.path("/home/ben"))
    for top in ("/etc", "/usr/src", "/var/mail", "/usr/local/jails/template"):
        machine.path(f"{top}/file").write_text(f"a file in {top}\n")
    variables = {"RESTIC_REPOSITORY": "/backup/restic", "RESTIC_PASSWORD": SECRET}
    path = machine.path(ENV_FILE)
    path.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    path.chmod(0o600)
    machine.run(["restic", "init"], env=variables, check=True)
    machine.path("/etc/periodic.conf").write_text(PERIODIC_CONF)
    return machine


def same(text: str) -> str:
    """Return a mail with times, sizes, and what is random made the same in every run.

    How many files there are depends on the sandbox; a drill chooses some at random, among
    them such as change all the time.
    """
    text = nights.timeless(text)
    text = re.sub(r"\b\d+ files, SIZE, \d+ new", "MANY files, SIZE, SOME new", text)
    text = re.sub(r"backup [0-9a-f]{8} of", "backup ID of", text)
    text = re.sub(r"--seed \d+", "--seed NUMBER", text)
    text = re.sub(r"restic-check-cache-\d+", "restic-check-cache-NUMBER", text)
    text = re.sub(r"\d+ of 10 files restored identical", "10 of 10 files restored identical", text)
    return re.sub(r"^  \d+ restored, live file has changed .*\n", "", text, flags=re.M)


def change(machine: Sandbox) -> None:
    """Do by day what an administrator may: a new user, one less, an update, a lost key."""
    shell(
        machine,
        """
        zfs create zroot/home/carl; echo hello > /home/carl/file
        zfs destroy zroot/home/ben
        zfs unmount zroot/var/mail
        zfs create -o mountpoint=/ -o canmount=noauto zroot/ROOT/14.2
        """,
    )


def misfortune(machine: Sandbox) -> None:
    """Let much go wrong by day: the disk of the backups is away, and a run was killed."""
    shell(
        machine,
        """
        zfs mount zroot/var/mail
        zpool export backup
        zfs destroy zroot/vm
        zfs create -o mountpoint=/srv -o org.kopiatomic:backup=off zroot/srv
        zfs snapshot -o org.kopiatomic:run=restomic:usb:0123456789ab \\
            zroot/home@restomic-20261121T030100Z-0123456789ab
        echo restomic:usb:0123456789ab > /var/db/kopiatomic/restomic.usb.unfinished
        """,
    )
