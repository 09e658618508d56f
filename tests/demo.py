"""One night on a FreeBSD machine: real files, the real clients, and proof.

`make demo` runs this. On Linux the machine is the sandbox host; on FreeBSD it
is the machine itself, with pools on files and mount points below /kt. A client that is
not there yet is built, on Linux, while the machine and the plan are shown.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from support import clients, nights, tree
from support.building import Building
from support.machine import BASE, FreeBSD, Machine, Sandbox, shell

WIDTH = 78
LINUX = sys.platform.startswith("linux")

DATASETS = """
zfs create -o mountpoint={top}/home            kta/home
zfs create                                     kta/home/ben
zfs create                                     'kta/home/with space'
zfs create -o mountpoint={top}/usr/src         kta/sources
zfs create -o canmount=off -o mountpoint={top}/var kta/var
zfs create                                     kta/var/log
zfs create -o mountpoint=none                  kta/none
zfs create -o canmount=noauto                  kta/spare
zfs create -V 16m                              kta/swap
zfs create -o mountpoint=legacy                kta/moved
mkdir -p {top}/srv; mount -t zfs kta/moved {top}/srv
zfs create -o mountpoint={top}/data            ktb/data
"""

# What users do while the backup runs: the hook returns, they go on for some seconds.
USERS = """#!/bin/sh
echo "changed while the backup ran" > {top}/home/ben/docs/letter.txt
rm {top}/home/ben/big; echo new > {top}/home/ben/new
(for n in 1 2 3 4 5 6 7 8; do date >> {top}/var/log/messages; sleep 0.5; done) >/dev/null 2>&1 &
"""


def main() -> int:
    """Run the demo and return 0 if everything that was restored is right."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Whoever reads this through a pipe is waiting, too.
        sys.stdout.reconfigure(line_buffering=True)
    if os.geteuid() != 0:
        print("make demo must be run by root: it makes mounts and runs backups", file=sys.stderr)
        return 77
    right = []
    # On FreeBSD the clients are packages: nothing is built there.
    wanted = Building(["restic", "kopia"]) if LINUX else nullcontext()
    with wanted as building, a_machine() as (machine, top):
        prepare(machine, top)
        plan(machine, top)
        if available("restic", machine, building):
            right.append(night(machine, top, "restomic", "restic", restic_store(machine)))
            if LINUX:
                mornings()
        if available("kopia", machine, building):
            right.append(night(machine, top, "kopiatomic", "kopia", kopia_store(machine)))
    print()
    rule("Done: what was restored is the moment of the snapshot" if all(right) else "WRONG")
    return 0 if right and all(right) else 1


@contextmanager
def a_machine() -> Iterator[tuple[Machine, str]]:
    """Give a machine to play on and the directory that its mount points lie in."""
    if sys.platform.startswith("freebsd"):
        real = FreeBSD()
        try:
            yield real, BASE
        finally:
            shell(real, f"umount {BASE}/srv")
            real.close()
        return
    with tempfile.TemporaryDirectory(prefix="kopiatomic-demo-") as directory:
        sandbox = Sandbox(Path(directory) / "host")
        try:
            yield sandbox, ""
        finally:
            sandbox.close()


def prepare(machine: Machine, top: str) -> None:
    """Make pools, datasets and files of every kind."""
    for pool in ("kta", "ktb"):
        machine.make_pool(pool)
    shell(machine, "set -e" + DATASETS.format(top=top))
    for place in ("home", "home/ben", "data", "srv"):
        tree.fill(machine.path(f"{top}/{place}"))
    for place in ("home/with space", "usr/src", "var/log"):
        machine.path(f"{top}/{place}/file").write_text(f"a file in {place}\n")
    users = machine.path(f"{top or '/root'}/users")
    users.write_text(USERS.format(top=top))
    users.chmod(0o755)
    where = "this machine" if isinstance(machine, FreeBSD) else "a sandbox on this machine"
    rule(f"A FreeBSD host ({where}): two pools, files of every kind")
    columns = "name,mounted,canmount,mountpoint"
    show(machine.run(["zfs", "list", "-t", "filesystem,volume", "-o", columns]).stdout)


def plan(machine: Machine, top: str) -> None:
    """Show what a backup would do."""
    argv = ["restomic", "-n", "-r", "-s", f"{top or '/root'}/users", "kta", "ktb"]
    client = machine.path("/usr/local/bin/restic")
    if LINUX and not client.exists():
        # The plan names the client and does not run it; the real one takes this one's place.
        client.unlink(missing_ok=True)
        client.write_text("#!/bin/sh\necho 'restic is still being built' >&2\nexit 69\n")
        client.chmod(0o755)
    print()
    rule(" ".join(argv))
    result = machine.run([f"/usr/local/sbin/{argv[0]}", *argv[1:]], env=restic_store(machine))
    show(result.stdout + result.stderr)


def available(client: str, machine: Machine, building: Building | None) -> bool:
    """Wait for a client if it is being built; say whether it can be run, and why not."""
    if building:
        ticker = Ticker(client)
        building.wait_for(client, ticker.show)
        ticker.end()
    if isinstance(machine, Sandbox):
        machine.install_clients()
    reason = clients.missing(client)
    if reason:
        print()
        rule(f"The {client} half is left out")
        show(reason)
    return reason is None


class Ticker:
    """Shows how far a client is: on a terminal in one line, which is written anew."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.begun = False
        self.terminal = sys.stdout.isatty()

    def show(self, line: str) -> None:
        """Show a line of prepare.py."""
        if not self.begun:
            print()
            rule(f"Getting {self.client}")
            self.begun = True
        text = f"  {line.removeprefix('prepare: ')}"
        if self.terminal:
            print(f"\r\x1b[K{text[:WIDTH]}", end="", flush=True)
        else:
            print(text)

    def end(self) -> None:
        """End the line that was written anew."""
        if self.begun and self.terminal:
            print()


def restic_store(machine: Machine) -> dict[str, str]:
    """Return the environment of a restic repository."""
    return {"RESTIC_REPOSITORY": f"{backup_directory(machine)}/restic", "RESTIC_PASSWORD": "demo"}


def kopia_store(machine: Machine) -> dict[str, str]:
    """Return the environment of a kopia repository."""
    directory = backup_directory(machine)
    return {
        "KOPIA_PASSWORD": "demo",
        "KOPIA_CHECK_FOR_UPDATES": "false",
        "KOPIA_CONFIG_PATH": f"{directory}/kopia.config",
        "KOPIA_CACHE_DIRECTORY": f"{directory}/cache",
        "KOPIA_LOG_DIR": f"{directory}/log",
    }


def backup_directory(machine: Machine) -> str:
    """Return a directory that no dataset of the demo contains."""
    return str(machine.directory) if isinstance(machine, FreeBSD) else "/backup"


def night(machine: Machine, top: str, program: str, client: str, store: dict[str, str]) -> bool:
    """Back up, restore, compare; return whether all is as it was at the moment."""
    directory = backup_directory(machine)
    machine.path(directory).mkdir(exist_ok=True)
    init = {
        "restic": ["restic", "init"],
        "kopia": ["kopia", "repository", "create", "filesystem", "--path", f"{directory}/kopia"],
    }[client]
    machine.run(init, env=store, check=True)
    restore_letters(machine, top)
    kept = {} if client == "restic" else tree.KEPT_BY_KOPIA
    if sys.platform.startswith("freebsd"):
        kept = {**kept, "symlink_times": False}
    before = tree.picture(machine.path(f"{top}/home"), **kept)

    argv = [program, "-r", "-s", f"{top or '/root'}/users", "kta", "ktb"]
    print()
    rule(" ".join(argv))
    show(f"with {client} {clients.version(client)}, {clients.find(client).path}")
    result = machine.run([f"/usr/local/sbin/{program}", *argv[1:]], env=store)
    # What kopia itself says goes to standard error, and is long the first time.
    show(result.stdout if result.returncode == 0 else result.stdout + result.stderr)
    if result.returncode != 0:
        return False

    out = f"{directory}/restored-by-{client}"
    source = restore(machine, client, store, f"{top}/home", out)
    after = tree.picture(machine.path(source), **kept)
    changed = tree.picture(machine.path(f"{top}/home"), **kept) != before
    same = after == before
    print(f"  Live files have changed since: {'yes' if changed else 'NO'}.")
    print(
        f"  {len(after)} files and directories restored: contents, modes, owners and times "
        f"{'equal' if same else 'DIFFER FROM'}\n  those of the moment of the snapshot."
    )
    if kept:
        print("  (kopia keeps no fifos, no hard links, and no times of links and directories.)")
    again = machine.run([f"/usr/local/sbin/{program}", "--json", "ktb/data"], env=store, check=True)
    figures = json.loads(again.stdout)["client"]
    read, files = figures["new_or_changed"], figures["files"]
    print(f"  A second run over {top}/data read {read} of {files} files.")
    return changed and same and read == 0


def restore_letters(machine: Machine, top: str) -> None:
    """Put back what the users of the night before have changed."""
    docs = machine.path(f"{top}/home/ben/docs")
    (docs / "letter.txt").write_text("Dear Ada,\n")
    machine.path(f"{top}/home/ben/big").write_bytes(bytes(range(256)) * 4096)
    machine.path(f"{top}/home/ben/new").unlink(missing_ok=True)


def restore(machine: Machine, client: str, store: dict[str, str], path: str, out: str) -> str:
    """Restore a path into a directory and return where its files are then."""
    if client == "restic":
        machine.run(["restic", "restore", "latest", "--target", out], env=store, check=True)
        return f"{out}{path}"
    machine.run(["kopia", "restore", path, out], env=store, check=True)
    return out


def mornings() -> None:
    """Show the mails of a good night and of a bad one, as the scripts for periodic(8) send them."""
    with tempfile.TemporaryDirectory(prefix="kopiatomic-demo-") as directory:
        machine = Sandbox(Path(directory) / "host")
        try:
            nights.prepare(machine)
            print()
            rule("/etc/periodic.conf")
            show(nights.PERIODIC_CONF)
            for title, night in (("good", nights.good_night), ("bad", nights.bad_night)):
                for mail in night(machine):
                    print()
                    rule(f"The morning after a {title} night")
                    show(nights.body(mail))
        finally:
            machine.close()


def rule(title: str) -> None:
    """Print a heading."""
    print(f"== {title} {'=' * max(0, WIDTH - len(title) - 4)}")


def show(text: str) -> None:
    """Print what a command said, indented."""
    print(textwrap.indent(text.strip("\n"), "  "))


if __name__ == "__main__":
    # However it ends, the machine and what is half built go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
