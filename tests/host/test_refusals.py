"""Bad input: one line, a sysexits status, and nothing changed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from support.machine import BASE, CHECKOUT, MODULES, Machine, shell

from host.conftest import TOP, clean, leave_pool_no_room, make_read_only

USAGE, NOINPUT, UNAVAILABLE, NOPERM, CONFIG = 64, 66, 69, 77, 78


@pytest.fixture
def odd(filled: Machine) -> Machine:
    """A machine with what cannot be backed up."""
    shell(
        filled,
        """
        zfs create -V 10m kta/vol
        zfs create -o canmount=off kta/off; zfs snapshot kta/off@there
        zfs create -o canmount=noauto kta/noauto
        zfs create -o mountpoint=none kta/none
        mkdir -p /kt/etc; echo 'A=1' > /kt/etc/open; chmod 644 /kt/etc/open
        echo '#!/bin/sh' > /kt/etc/notexec; chmod 644 /kt/etc/notexec
        """,
    )
    return filled


CASES = [
    ([], USAGE, "nothing to back up"),
    (["-c", "true", "kta/nosuch"], NOINPUT, "no dataset is called 'kta/nosuch'"),
    (["-c", "true", "kta/src/"], NOINPUT, "without the slash at its end"),
    (["-c", "true", "kta/src@x"], NOINPUT, "name its dataset"),
    (["-c", "true", "kta/off@there"], NOINPUT, "name its dataset"),
    (["-c", "true", "/nonexistent"], NOINPUT, "the path '/nonexistent' does not exist"),
    (["-c", "true", "/dev"], NOINPUT, "'/dev' is not on ZFS but on a devfs file system"),
    (["-c", "true", "kta/vol"], USAGE, "leave out --plain, or kta/vol"),
    (["-c", "true", "kta/off", "kta"], NOINPUT, "not mounted: its property canmount is off"),
    (["-c", "true", "kta/noauto", "kta"], NOINPUT, "kta/noauto cannot be backed up: not mounted"),
    (["-c", "true", "kta/none"], NOINPUT, "kta/none cannot be backed up: not mounted"),
    (["-c", "true", "kta/none", "--at", "/etc"], NOINPUT, "--at /etc: there are files in it"),
    (["-c", "true", "kta/src", "--at", "/no"], NOINPUT, "--at /no: no such directory"),
    (["-c", "true", "-r", "kta/off"], NOINPUT, "no selected dataset can be backed up"),
    (["-c", "true", "--", "-r"], NOINPUT, "no dataset is called '-r'"),
    (["-c", "true", "kta/ü%x"], NOINPUT, "no dataset is called 'kta/ü%x'"),
    (["-c", "true", ""], NOINPUT, "no dataset is called ''"),
    (["-c", "no-such-client backup", "kta/src"], UNAVAILABLE, "'no-such-client' is not installed"),
    (["-c", "/kt/etc/notexec", "kta/src"], UNAVAILABLE, "/kt/etc/notexec is not executable"),
    (["-c", "true", "-p", "/kt/etc/notexec", "kta/src"], UNAVAILABLE, "of -p cannot be run"),
    (["-c", "true", "-s", "/no/hook x", "kta/src"], UNAVAILABLE, "/no/hook does not exist"),
    (["-c", "true", "-q", "/no/hook", "kta/src"], UNAVAILABLE, "/no/hook does not exist"),
    (["-c", "true", "-e", "/kt/etc/open", "kta/src"], NOPERM, "chmod 600 /kt/etc/open"),
    (["-c", "true", "-e", "/kt/etc/none", "kta/src"], NOINPUT, "cannot read the env file"),
    (["-c", "true", "--live", "/nonexistent", "kta/src"], NOINPUT, "no such directory"),
    (["-c", "true", "--live", "/kt", "kta/src"], USAGE, "would undo the freezing of /kt/kta/src"),
    (["-c", "true", "-j", "../x", "kta/src"], USAGE, "cannot be a job's name"),
    (["-c", "'", "kta/src"], USAGE, "no closing quotation"),
    (["--nosuch", "kta/src"], USAGE, "--nosuch not recognized"),
]


def test_each_is_one_line_with_its_status_and_changes_nothing(odd: Machine):
    before = odd.run(["mount", "-p"]).stdout
    for words, status, says in CASES:
        result = odd.run(["/usr/local/sbin/restomic", "--plain", *words])
        assert (result.returncode, result.stdout) == (status, ""), (words, result)
        assert result.stderr.count("\n") == 1, (words, result.stderr)
        assert says in result.stderr, (words, result.stderr)
        assert result.stderr.startswith("restomic: ")
    clean(odd)
    assert odd.run(["mount", "-p"]).stdout == before
    history = odd.path("/var/db/kopiatomic")
    assert not history.exists() or not odd.is_sandbox


def test_what_recursion_meets_is_skipped_and_reported(odd: Machine):
    result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "-r", "kta"])
    assert result.returncode == 0, result.stderr
    for name in ("kta/vol", "kta/off", "kta/noauto", "kta/none"):
        assert re.search(rf"(?m)[ ]{name}(?:[ ,]|$)", result.stdout), name
    clean(odd)


def test_a_target_named_twice_and_a_parent_with_its_child(odd: Machine):
    result = odd.run(
        ["/usr/local/sbin/restomic", "--plain", "-c", "/bin/echo got",
         "kta/home", f"{TOP}/home/", "kta/home/ben", "kta/home"]
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"got {TOP}/home\n" in result.stdout


def test_who_is_not_root(odd: Machine):
    result = as_nobody(odd, "kta/src")
    assert (result.returncode, result.stdout) == (NOPERM, "")
    assert "must be run by root" in result.stderr
    plan = as_nobody(odd, "-n", "--plain", "-c", "true", "kta/src")
    assert plan.returncode == 0, plan.stderr
    assert "zfs snapshot -o org.kopiatomic:run=restomic:default:" in plan.stdout


def as_nobody(odd: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    """Run restomic as the user nobody, with a python that this user may execute."""
    if odd.is_sandbox:
        python = json.loads((odd.host.directory / "host.json").read_text())["fast_python"]
        python, modules = f"/compat/linux{python}", MODULES
    else:
        # Others may not enter root's checkout.
        python, modules = sys.executable, f"{BASE}/modules"
        if not odd.path(modules).exists():
            shutil.copytree(CHECKOUT / "src", modules)
            shell(odd, f"chmod -R a+rX {modules}")
    code = (
        f"import sys; sys.path.insert(0, '{modules}');"
        "from kopiatomic.cli import restomic; sys.exit(restomic())"
    )
    argv = [python, "-IB", "-c", code, *words]
    if odd.is_sandbox:
        return odd.host.run(argv, user="nobody")
    return odd.run(["su", "-m", "nobody", "-c", shlex.join(argv)])


def test_an_encrypted_dataset_without_its_key(odd: Machine):
    shell(odd, "echo password | zfs create -o encryption=on -o keyformat=passphrase kta/crypt")
    shell(odd, "zfs unmount kta/crypt; zfs unload-key kta/crypt")
    result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "kta/crypt"])
    assert result.returncode == NOINPUT
    assert "its encryption key is not loaded" in result.stderr


def test_a_jailed_dataset(odd: Machine):
    shell(odd, "zfs create -o jailed=on kta/jail")
    result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "kta/jail"])
    assert result.returncode == NOINPUT
    assert "belongs to a jail" in result.stderr


without_modules = pytest.mark.linux(reason="takes away modules of the kernel, which others use")


class TestKernel:
    def refused(self, odd: Machine, status: int, says: str) -> None:
        result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "kta/src"])
        assert result.returncode == status, result
        assert says in result.stderr
        clean(odd)

    @without_modules
    def test_no_zfs(self, odd: Machine):
        odd.host.kernel(zfs=False)
        result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "kta/src"])
        odd.host.kernel(zfs=True)
        assert (result.returncode, result.stdout) == (UNAVAILABLE, "")
        assert "there is no ZFS in this kernel" in result.stderr

    def test_in_a_jail(self, odd: Machine):
        program = "/usr/local/sbin/restomic" if odd.is_sandbox else str(odd.programs / "restomic")
        shell(odd, "jail -c name=ktj path=/ persist")
        try:
            result = odd.run(["jexec", "ktj", program, "--plain", "-c", "true", "kta/src"])
        finally:
            odd.run(["jail", "-r", "ktj"])
        assert result.returncode == UNAVAILABLE
        assert "this jail may not mount what a backup needs" in result.stderr
        assert "allow.mount, allow.mount.zfs" in result.stderr

    @without_modules
    def test_no_nullfs(self, odd: Machine):
        odd.host.kernel(nullfs=False, loadable=False)
        result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "kta/src"])
        assert result.returncode == 71
        assert "there is no nullfs in this kernel" in result.stderr
        clean(odd)

    def test_no_space(self, odd: Machine):
        leave_pool_no_room(odd, "kta")
        self.refused(odd, 73, "out of space")

    def test_a_read_only_pool(self, odd: Machine):
        """It stands still by itself."""
        make_read_only(odd, "kta")
        result = odd.run(["/usr/local/sbin/restomic", "--plain", "-c", "true", "kta/src"])
        assert result.returncode == 0, result
        assert "the pool kta is read-only and so stands still" in result.stdout
        clean(odd)

