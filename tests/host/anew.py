"""A machine anew from its backups, by the commands that the manual has."""

from __future__ import annotations

import json
from pathlib import Path

from support.machine import Machine, shell

from host.conftest import Repository, clean

PROGRAMS = {"restic": "restomic", "kopia": "kopiatomic"}
ALTROOT = "/kt/anew"

# As the manual has it: the commands that stand in a layout, by what base has.
BY_SED = r"""
sed -n '/^ "commands": /,/^ ]/s/^  "\(.*\)",*$/\1/p' {0}/layout.json |
    sed 's/\\\(["\\]\)/\1/g' > {0}/layout.sh
"""
LATER = "sed -n 's/^#after: //p' {0}/layout.sh | sh -e"


def back_up(made: Repository, *words: str, status: int = 0, **variables: str) -> str:
    program = f"/usr/local/sbin/{PROGRAMS[made.client]}"
    environment = {**made.environment, **variables}
    result = made.machine.run([program, *words], env=environment, timeout=300)
    assert result.returncode == status, result.stdout + result.stderr
    clean(made.machine)
    return result.stdout + result.stderr


def dump(made: Repository, job: str = "default") -> str:
    """Get the last layout of a job out of a repository by hand, as the manual has it."""
    name = f"/kopiatomic/layout/{job}.json"
    if made.client == "restic":
        return made("dump", "--tag", f"restomic:{job}:layout", "latest", name)
    shell(made.machine, f"mkdir -p {made.directory}/out")
    made("restore", name, f"{made.directory}/out")
    return made.machine.path(f"{made.directory}/out/{job}.json").read_text()


def restore(made: Repository, top: str) -> None:
    """Restore all files below the altroot, by the commands that the manual has."""
    if made.client == "restic":
        made("restore", "latest", "--tag", "restomic:default", "--target", top)
        return
    listed = json.loads(made("snapshot", "list", "--json"))
    paths = {each["source"]["path"] for each in listed}
    for path in sorted(each for each in paths if not each.startswith(("/kopiatomic/", "/dev/"))):
        made("restore", path, f"{top}{path}")


def properties(machine: Machine, pool: str) -> str:
    """Return what is set on the datasets of a pool, without what makes no difference."""
    words = ["-Hp", "-r", "-t", "filesystem,volume", "-s", "local,received"]
    said = shell(machine, f"zfs get {' '.join(words)} -o name,property,value all {pool}").stdout
    lines = [line for line in said.splitlines() if not line.endswith("\tcanmount\ton")]
    return "\n".join(sorted(lines))


def names(top: Path) -> dict[str, bytes | None]:
    """Return the files below a directory with what is in them: what any client restores."""
    return {
        str(each.relative_to(top)): each.read_bytes() if each.is_file() else None
        for each in sorted(top.rglob("*"))
        if each.is_dir() or each.is_file()
    }
