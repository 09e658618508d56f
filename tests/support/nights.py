"""A good night and a bad one on a machine, and the mails they bring."""

from __future__ import annotations

import re

from support import tree
from support.machine import BASE, Machine, Sandbox, shell

SECRET = "correct-horse-battery"
ENV_FILE = "/usr/local/etc/kopiatomic/restic.env"

PERIODIC_CONF = f"""
daily_restomic_enable="YES"
daily_restomic_profiles="home mail"
daily_restomic_env_file="{ENV_FILE}"
daily_restomic_home_datasets="kta/home"
daily_restomic_home_recursive="YES"
daily_restomic_home_exclude="*/cache"
daily_restomic_mail_datasets="kta/mail"
daily_restomic_mail_env_file="/usr/local/etc/kopiatomic/offsite.env"
daily_status_restomic_enable="YES"
security_status_kopiatomic_enable="YES"
"""


def prepare(machine: Machine) -> None:
    """Make datasets, files, two repositories, and periodic.conf; let a first night pass."""
    # On a machine that is not made for the tests, all of it is below BASE.
    top = "" if machine.is_sandbox else BASE
    etc = f"{machine.prefix}/etc/kopiatomic"
    machine.install_periodic()
    machine.make_pool("kta")
    shell(
        machine,
        f"zfs set mountpoint=none kta; zfs create -o mountpoint={top}/home kta/home;"
        "zfs create kta/home/ben; zfs create kta/home/cache; zfs create -V 16m kta/home/disk;"
        f"zfs create -o mountpoint={top}/var/mail/queue kta/mail;"
        f"mkdir -p {BASE} {top}/backup {etc}",
    )
    tree.fill(machine.path(f"{top}/home"))
    tree.fill(machine.path(f"{top}/home/ben"))
    machine.path(f"{top}/var/mail/queue/letter").write_text("Dear Ada,\n")
    for name, directory in (("restic", "here"), ("offsite", "offsite")):
        repository = f"{top}/backup/{directory}"
        path = machine.path(f"{etc}/{name}.env")
        path.write_text(f"RESTIC_REPOSITORY={repository}\nRESTIC_PASSWORD={SECRET}\n")
        path.chmod(0o600)
        environment = {"RESTIC_REPOSITORY": repository, "RESTIC_PASSWORD": SECRET}
        machine.run(["restic", "init"], env=environment, check=True)
    text = PERIODIC_CONF.replace("/usr/local", machine.prefix)
    machine.path(machine.periodic_conf).write_text(text)
    machine.periodic()


def good_night(machine: Sandbox) -> list[str]:
    """Let a night pass in which all is well; return its mails."""
    machine.path("/home/ben/new").write_text("written by day")
    return machine.periodic()


def bad_night(machine: Sandbox) -> list[str]:
    """Let a night pass in which much is wrong; return its mails."""
    shell(
        machine,
        f"mv /backup/offsite /backup/gone; chmod 644 {ENV_FILE};"
        "zfs create -o mountpoint=/srv/new kta/new;"
        "zfs snapshot -o org.kopiatomic:run=restomic:home:0123456789ab "
        "kta/home@restomic-20261121T030100Z-0123456789ab;"
        # Without the note of the run that was killed, nobody looks before the next boot.
        "echo restomic:home:0123456789ab > /var/db/kopiatomic/restomic.home.unfinished",
    )
    return machine.periodic()


def body(mail: str) -> str:
    """Return a mail's subject and text without the lines that say how it travelled."""
    head, _, text = mail.partition("\n\n")
    subject = next(line for line in head.splitlines() if line.startswith("Subject: "))
    return f"{subject}\n\n{text.strip()}\n"


def timeless(text: str) -> str:
    """Return a mail's text with times, sizes and random numbers made the same in every run."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?( UTC)?", "DATE", text)
    text = re.sub(r"\b\d+ (s|min|h|d)\b( \d+ (s|min|h)\b)?", "TIME", text)
    text = re.sub(r"\bjust now\b", "TIME", text)
    text = re.sub(r"\d[\d.]* (B|KiB|MiB)\b", "SIZE", text)
    text = re.sub(r"saved as [0-9a-f]{8}", "saved as ID", text)
    # What is aligned depends on how long these were.
    return re.sub(r"(?<=\S) {2,}(?=\S)", "  ", text)
