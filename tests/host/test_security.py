"""What others on the machine, and the caller's surroundings, cannot do to a program of root's.

One class or test for each clause. What is not here: modes of directories whatever the umask,
links in place of directories and the lock (unit/test_state), env files that are open, another's
or a fifo (unit/test_environment), a link that appears after the snapshot (test_routine), secrets in
mail and history (test_mail, unit/test_redact), texts of periodic.conf (test_periodic, too).
"""

from __future__ import annotations

import itertools
import re
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sandbox import layouts
from support import tree
from support.jail import Jail
from support.machine import PATH, PROGRAMS, Machine, Sandbox, shell, wait_for
from support.rendering import renderer

from host.conftest import TOP, clean
from host.ongoing import meanwhile
from host.test_routine import script

NOPERM, OSERR, CANTCREAT = 77, 71, 73

# Whoever is not root.
OTHER = "nobody"


def program(machine: Machine, name: str = "restomic") -> str:
    """Return the path of one of the programs, to be started by a shell."""
    return f"/usr/local/sbin/{name}" if machine.is_sandbox else str(machine.programs / name)


def call(
    machine: Machine, *words: str, before: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run restomic to its end by a shell that says something ``before``."""
    argv = ["/bin/sh", "-c", f'{before}\nexec "$@"', "sh", program(machine), *words]
    return machine.run(argv, env=env)


@contextmanager
def during(
    machine: Machine, *words: str, before: str = "", client: str = "",
    env: Mapping[str, str] | None = None, by: str = "",
) -> Iterator[None]:  # fmt: skip
    """Hold a run of a plain job while its client, which first does what it is told, waits."""
    there, go = machine.path("/kt/there"), machine.path("/kt/go")
    go.unlink(missing_ok=True)
    waits = "echo > /kt/there; while [ ! -e /kt/go ]; do sleep 0.1; done; rm /kt/there"
    waiter = script(machine, f"{client}\n{waits}", "/kt/waiter")
    start = ["/bin/sh", "-c", f'{before}\nexec "$@"', "sh", by or program(machine), "--plain"]
    process = machine.popen(
        [*start, "-c", waiter, *words], env=dict(env or {}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True,
    )  # fmt: skip
    try:
        wait_for(lambda: there.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        yield
    finally:
        go.touch()
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said


def as_other(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    if machine.is_sandbox:
        return machine.host.run(argv, user=OTHER)
    return machine.run(["su", "-m", OTHER, "-c", shlex.join(argv)])


def names(machine: Machine, *directories: str) -> set[str]:
    """Return all that is in directories and below them, on their file systems."""
    # There the sandbox has the Linux machine, where other tests run.
    words = ["-xdev", "-path", "/compat", "-prune", "-o", "-print"]
    return set(machine.run(["find", *directories, *words]).stdout.split("\n"))


# No file or directory of ours is writable or readable by others


def ours(machine: Machine) -> list[Path]:
    """Return the files and directories of ours that there are; not those in a view."""
    tops = [machine.path(top) for top in ("/var/run/restomic", "/var/db/kopiatomic")]
    found = [*tops, *(each for top in tops for each in top.iterdir())]
    job = machine.path("/var/run/restomic/default")
    if job.exists():
        found += [each for each in job.iterdir() if each.name != "view"]
    return found


def closed(machine: Machine) -> list[str]:
    """Assert that nobody but root can do anything to what is ours; return the names of it."""
    found = ours(machine)
    for path in found:
        state = path.lstat()
        assert (state.st_uid, stat.S_IMODE(state.st_mode) & 0o077) == (0, 0), path
    return [path.name for path in found]


@pytest.mark.parametrize("umask", ["000", "077", "777"])
def test_what_is_ours_is_closed_whatever_the_callers_umask(filled: Machine, umask: str):
    shell(filled, "zfs create kta/home/ben/data")
    before = f"umask {umask}"
    client = "umask > /kt/umask; echo > /kt/made"
    words = ("-p", "echo > /kt/hooked", "kta/home", "kta/home/ben/data")
    with during(filled, *words, before=before, client=client):
        found = closed(filled)
    assert {"default.lock", "default", "gap", "restomic.default.unfinished"} <= set(found)
    assert "restomic.default.history" in closed(filled)
    # What the client makes, such as a repository, is closed as well; hooks are the caller's.
    assert filled.path("/kt/umask").read_text() == "0077\n"
    for name, mode in (("made", 0o600), ("hooked", 0o666 & ~int(umask, 8))):
        assert stat.S_IMODE(filled.path(f"/kt/{name}").stat().st_mode) == mode


def test_what_upkeep_and_drill_make_is_closed(filled: Machine):
    client = script(filled, "ls -l /var/db/kopiatomic > /kt/listing; echo '[]'")
    words = ["-c", f"{client} backup"]
    assert call(filled, *words, "--upkeep", "--prune", before="umask 000").returncode == 0
    call(filled, *words, "--drill", "1", before="umask 000")
    made = filled.path("/kt/listing").read_text().splitlines()[1:]
    assert any("drill.restomic.default." in line for line in made)
    assert [line for line in made if line[4:10] != "------"] == []
    assert "restomic.default.upkeep" in closed(filled)


# None is created in /tmp or at a predictable path others can reach first


COMMON = ("/tmp", "/var/tmp", "/kt/common")


def test_nothing_is_made_where_others_can_write(filled: Machine):
    shell(filled, f"mkdir -p /tmp /kt/common; chmod 1777 /kt/common; chown {OTHER} /kt/common")
    # On a machine that is not ours alone, others use the rest.
    watched = COMMON if filled.is_sandbox else COMMON[-1:]
    env = {"TMPDIR": "/kt/common"}
    before = names(filled, *watched)
    with during(filled, "-r", "kta", env=env):
        assert names(filled, *watched) == before
    find = f"find {' '.join(watched)} > /kt/found"
    client = script(filled, f"{find}; echo '[]'")
    for words in (["--upkeep", "--prune"], ["--drill", "1"]):
        call(filled, "-c", f"{client} backup", *words, env=env)
        assert set(filled.path("/kt/found").read_text().split("\n")) == before
    assert names(filled, *watched) == before


def test_what_has_no_name_is_not_there_either(filled: Machine):
    """The client's messages go to a file without a name: it is on the disk all the same."""
    if not filled.is_sandbox:
        pytest.skip("looks at what is open as Linux shows it")
    client = script(filled, "readlink /compat/linux/proc/$$/fd/2 >> /kt/open; echo '[]'")
    call(filled, "-c", f"{client} backup", "--drill", "1", env={"TMPDIR": "/tmp"})
    assert filled.path("/kt/open").read_text().startswith("/var/db/kopiatomic/")


def test_a_run_makes_files_in_two_directories_only(filled: Machine):
    if not filled.is_sandbox:
        pytest.skip("others make files on a machine that is not ours alone")
    # Bytecode, which the port brings along, is written by the first run.
    assert call(filled, "--plain", "-c", "true", "kta/src").returncode == 0
    shell(filled, f"rm -r {RUN} {STATE}")
    before = names(filled, "/", "/kt/kta")
    with during(filled, "-r", "kta"):
        made = names(filled, "/", "/kt/kta") - before
    places = ("/var/run/restomic", "/var/db/kopiatomic", "/kt/waiter", "/kt/there")
    assert made
    assert [name for name in made if not name.startswith(places)] == []
    assert made.issuperset(places)


# No symlink of another user is followed, nothing that others put in our way is used


RUN, STATE = "/var/run/restomic", "/var/db/kopiatomic"
JOB = f"mkdir -m 700 {RUN}; mkdir -m 700 {RUN}/default"

# What is in the way, and what a run does about it: its status and what it says.
IN_THE_WAY = {
    "a link for the mount root": (f"ln -s /kt/victim {RUN}", CANTCREAT, "not a directory"),
    "a file for the mount root": (f"echo > {RUN}", CANTCREAT, "not a directory"),
    "a fifo for the mount root": (f"mkfifo {RUN}", CANTCREAT, "not a directory"),
    "another's mount root": (f"mkdir -m 700 {RUN}; chown {OTHER} {RUN}", NOPERM, "belong to root"),
    "an open mount root": (f"mkdir -m 755 {RUN}", NOPERM, "closed to other users"),
    "a link for the job": (
        f"mkdir -m 700 {RUN}; ln -s /kt/victim {RUN}/default", CANTCREAT, "in the",
    ),
    "another's job": (f"{JOB}; chown {OTHER} {RUN}/default", CANTCREAT, "belong to root"),
    "a link for the view": (f"{JOB}; ln -s /kt/victim {RUN}/default/view", CANTCREAT, "in the way"),
    "a link for the lock": (
        f"mkdir -m 700 {RUN}; ln -s /kt/victim/file {RUN}/default.lock", CANTCREAT, "cannot lock",
    ),
    "a link for a lock that is not there": (
        f"mkdir -m 700 {RUN}; ln -s /kt/victim/new {RUN}/default.lock", CANTCREAT, "cannot lock",
    ),
    "a link for the state": (f"ln -s /kt/victim {STATE}", CANTCREAT, "not a directory"),
    "another's state": (f"mkdir -m 700 {STATE}; chown {OTHER} {STATE}", CANTCREAT, "to root"),
    "an open state": (
        f"mkdir -m 777 {STATE}; chmod 777 {STATE}", CANTCREAT, "closed to other users",
    ),
    "a link for the next note": (
        f"mkdir -m 700 {STATE}; ln -s /kt/victim/file {STATE}/restomic.default.unfinished.new",
        0, "",
    ),
    "a link for the next history": (
        f"mkdir -m 700 {STATE}; ln -s /kt/victim/file {STATE}/restomic.default.history.new", 0, "",
    ),
    "another link to a file for the next history": (
        f"mkdir -m 700 {STATE}; ln /kt/victim/file {STATE}/restomic.default.history.new", 0, "",
    ),
    "a file that another holds open for the next history": (
        f"mkdir -m 700 {STATE}; echo > {STATE}/restomic.default.history.new;"
        f"chown {OTHER} {STATE}/restomic.default.history.new", 0, "",
    ),
}  # fmt: skip


# Nothing is followed, and no other file system is entered.
NO_MORE = f"find {RUN} {STATE} -xdev -delete 2>/dev/null || true"


@pytest.fixture
def without_jobs(filled: Machine) -> Iterator[Machine]:
    """A machine where nothing of jobs of its own is in the directories of ours."""
    own, kept = filled.path(RUN), filled.path(f"{RUN}.kept-by-tests")
    mounted = f" {RUN}/" in filled.run(["mount", "-p"]).stdout
    assert not mounted, "a job of the machine's own is running"
    moved = own.is_dir()
    if moved:
        own.rename(kept)
    try:
        yield filled
    finally:
        shell(filled, NO_MORE)
        if moved:
            kept.rename(own)


def test_what_others_put_in_our_way_is_not_used(without_jobs: Machine):
    filled = without_jobs
    # As ours would be: if the link were followed, nothing would be wrong with it.
    shell(filled, "mkdir -m 700 /kt/victim; echo precious > /kt/victim/file")
    shell(filled, "chmod 600 /kt/victim/file")
    precious = tree.picture(filled.path("/kt/victim"))
    client = script(filled, "echo '[]'")
    others = [["--upkeep", "--prune"], ["--drill", "1"], ["--sweep"]]
    for case, (put, status, says) in IN_THE_WAY.items():
        shell(filled, f"{NO_MORE}; {put}")
        shell(filled, f"find {RUN} {STATE} -type l -exec chown -h {OTHER} {{}} + 2>&1 || true")
        result = call(filled, "--plain", "-c", client, "kta/src")
        assert result.returncode == status, (case, result)
        assert says in result.stderr, (case, result)
        assert tree.picture(filled.path("/kt/victim")) == precious, case
        for words in others if status else ():
            result = call(filled, "-c", f"{client} backup", *words)
            assert "internal error" not in result.stderr, (case, words, result)
            assert tree.picture(filled.path("/kt/victim")) == precious, (case, words)
        if status == 0:
            closed(filled)
        listed = filled.run(["zfs", "list", "-H", "-r", "-t", "snapshot", "kta"])
        assert listed.stdout == "", case


# The way to an env file, below a directory of root's that others cannot write.
WAYS = {
    "a link of root's to a file": ("ln -s /kt/etc/good $D/env", None),
    "a link of another's to a file": (f"ln -s /kt/etc/good $D/env; chown -h {OTHER} $D/env", "env"),
    "a link of another's to a directory": (
        f"mkdir $D/a; ln -s /kt/etc $D/a/b; chown -h {OTHER} $D/a/b; ln -s a/b/good $D/env", "a/b",
    ),
    "a link by way of another's directory": (
        f"mkdir $D/a; ln -s /kt/etc/good $D/a/b; ln -s a/b $D/env; chown {OTHER} $D/a", "a",
    ),
    "another link to the file, in a directory of another's": (
        f"mkdir $D/a; ln /kt/etc/good $D/a/b; chown {OTHER} $D/a; ln -s a/../a/b $D/env", "a",
    ),
    "a directory that a group can write": (
        "mkdir $D/a; cp -p /kt/etc/good $D/a/b; chmod 775 $D/a; ln -s a/b $D/env", "a",
    ),
    "a directory that everybody can write and only the owner removes from": (
        "mkdir $D/a; cp -p /kt/etc/good $D/a/b; chmod 1777 $D/a; ln -s a/b $D/env", None,
    ),
}  # fmt: skip


def test_nothing_of_another_user_leads_to_the_env_file(filled: Machine):
    shell(filled, "mkdir /kt/etc; echo MARK=read > /kt/etc/good; chmod 600 /kt/etc/good")
    client = script(filled, "echo MARK is $MARK")
    for case, (lay, culprit) in WAYS.items():
        shell(filled, f"D=/kt/way; rm -rf $D; mkdir $D; {lay}")
        result = call(filled, "--plain", "-e", "/kt/way/env", "-c", client, "kta/src")
        if culprit is None:
            assert "MARK is read\n" in result.stdout, (case, result)
            continue
        assert result.returncode == NOPERM, (case, result)
        assert f"/kt/way/{culprit}, which leads to the env file" in result.stderr, (case, result)
        assert result.stderr.count("\n") == 1


class TestLinksInTheView:
    """Another user's link in the way to a mount point leads to a directory of root's.

    If a mount followed it, that user's files would lie over root's, live; if umount
    did, what is mounted there would be gone.
    """

    HOME = f"{TOP}/home/ben"
    BACK = f"rm {HOME}/work; mv {HOME}/away {HOME}/work"
    THERE = f"mv {HOME}/work {HOME}/away; ln -s /kt/victim {HOME}/work"

    # What the client is told of is in the view.
    NAMED = f"{HOME}/work/inner/list"

    @pytest.fixture(autouse=True)
    def _victim(self, filled: Machine) -> Iterator[None]:
        shell(
            filled,
            f"mkdir {self.HOME}/work /kt/victim;"
            f"zfs create -o mountpoint={self.HOME}/work/inner kta/inner;"
            "zfs create -o mountpoint=/kt/victim/inner kta/victim; echo good > /kt/victim/inner/f",
        )
        yield
        assert " on /kt/victim/inner (zfs" in filled.run(["mount"]).stdout
        assert filled.run(["cat", "/kt/victim/inner/f"]).stdout == "good\n"
        clean(filled)

    def test_in_a_frozen_directory(self, filled: Machine):
        shell(filled, self.THERE)
        look = "cat /kt/victim/inner/f"
        result = call(
            filled, "--plain", "-c", "true", "-s", self.BACK, "-q", look, "kta/inner",
            "kta/home/ben",
        )  # fmt: skip
        assert result.returncode == CANTCREAT, result
        assert "a symbolic link or a file has taken the place" in result.stderr
        assert result.stdout.startswith("good\n")

    def test_on_the_way_to_what_is_captured(self, filled: Machine):
        """No live path leads to the snapshot, so others' files cannot stand in for it."""
        client = script(filled, f"test ! -e {self.HOME}/work/inner/f")
        result = call(
            filled, "--plain", "-c", client, "-s", self.THERE, "kta/inner", "kta/home/ben"
        )  # fmt: skip
        assert result.returncode == 0, result
        shell(filled, self.BACK)

    def test_in_a_live_directory(self, filled: Machine):
        result = call(
            filled, "--plain", "-c", "true", "-o", self.NAMED, "-s", self.THERE, "kta/src"
        )
        assert result.returncode == 0, result
        assert f"{self.HOME}/work/inner is not in the view: a symbolic link" in result.stdout
        shell(filled, self.BACK)

    def test_that_leads_a_live_mount_elsewhere_in_the_moment_it_is_shown(self, filled: Machine):
        """What is shown then is another's, and is taken out of the view again."""
        inner = f"{self.HOME}/work/inner"
        by = meanwhile(filled, ("mount_nullfs", inner), self.THERE)
        with during(filled, "-o", self.NAMED, "kta/src", by=by):
            shown = filled.run(["mount", "-v"]).stdout
        assert not re.search(rf" on {RUN}/default/view\S*/(work|away)/inner ", shown), shown
        shell(filled, self.BACK)

    def test_that_appears_when_the_mount_has_failed(self, filled: Machine):
        shell(filled, f"mv {self.HOME}/work {self.HOME}/away")
        with during(filled, "kta/src"):
            shell(filled, f"ln -s /kt/victim {self.HOME}/work")
        shell(filled, self.BACK)

    def test_to_what_lies_on_another_machine(self, filled: Machine):
        if not filled.is_sandbox:
            pytest.skip("there is no other machine")
        shell(filled, f"zfs unmount kta/inner; mount -t nfs nas:/x {self.HOME}/work/inner")
        result = call(
            filled, "--plain", "-c", "true", "-o", self.NAMED, "-s", self.THERE, "kta/src"
        )
        assert result.returncode == 0, result
        assert f"{self.HOME}/work/inner is not in the view: a symbolic link" in result.stdout
        shell(filled, f"{self.BACK}; umount {self.HOME}/work/inner")


def test_an_exclude_file_is_the_clients_to_read_and_not_rewritten(filled: Machine):
    shell(filled, f"echo '*.o' > /kt/precious; ln -s precious /kt/x; chown -h {OTHER} /kt/x")
    words = ("-o", "--exclude-file /kt/x", "--", "kta/src")
    with during(filled, *words, client='printf "%s\\n" "$@" > /kt/words'):
        assert filled.path("/kt/x").is_symlink()
    assert filled.path("/kt/words").read_text() == f"--exclude-file\n/kt/x\n{TOP}/src\n"
    assert filled.path("/kt/precious").read_text() == "*.o\n"


# PATH and environment are set, not inherited


def test_programs_are_looked_up_in_our_path(filled: Machine):
    decoy = script(filled, f'echo "$0" >> /kt/fooled; PATH={PATH} exec "${{0##*/}}" "$@"')
    system = "zfs mount umount mount_nullfs chroot sysctl fstat kldstat sh true env ls"
    shell(filled, f"mkdir /kt/evil; for each in {system}; do ln -s {decoy} /kt/evil/$each; done")
    env = {"PATH": "/kt/evil"}
    words = ["--plain", "-c", "true", "-p", "ls > /dev/null", "-r", "kta"]
    result = call(filled, *words, env=env)
    assert result.returncode == 0, result.stderr
    assert call(filled, "--sweep", env=env).returncode == 0
    assert not filled.path("/kt/fooled").exists()


HOSTILE = {
    "LD_LIBRARY_PATH": "/kt/evil", "PYTHONPATH": "/kt/evil", "PYTHONSTARTUP": "/kt/evil/x",
    "IFS": "/kt/evil", "ENV": "/kt/evil/x", "BASH_ENV": "/kt/evil/x", "CDPATH": "/kt/evil",
    "BASH_FUNC_restic%%": "() { /kt/evil/x; }", "ZDOTDIR": "/kt/evil", "FPATH": "/kt/evil",
    "PERL5LIB": "/kt/evil", "PERL5OPT": "-I/kt/evil", "RUBYLIB": "/kt/evil",
    "PS4": "$(touch /kt/evil/fooled)",
}  # fmt: skip


def test_the_users_programs_inherit_nothing_that_loads_something_else(filled: Machine):
    env = {**HOSTILE, "PATH": f"/kt/evil:{PATH}", "RESTIC_REPOSITORY": "/kept", "HOME": "/root"}
    client = script(filled, "env > /kt/env.client")
    hooks = ("-p", "env > /kt/env.p", "-s", "env > /kt/env.s", "-q", "env > /kt/env.q")
    result = call(filled, "--plain", "-c", client, *hooks, "kta/src", env=env)
    assert result.returncode == 0, result.stderr
    assert call(filled, "-c", f"{script(filled, 'env > /kt/env.upkeep', '/kt/upkeep')} backup",
                "--upkeep", "--prune", env=env).returncode == 0  # fmt: skip
    for name in ("client", "p", "s", "q", "upkeep"):
        lines = filled.path(f"/kt/env.{name}").read_text().splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        assert found["PATH"] == PATH, name
        assert found["RESTIC_REPOSITORY"] == "/kept", name
        assert "/kt/evil" not in "".join(found.values()), (name, found)


def test_the_systems_programs_inherit_nothing(filled: Machine):
    if not filled.is_sandbox:
        pytest.skip("would replace the machine's own programs")
    for path in ("/sbin/zfs", "/sbin/mount", "/sbin/umount"):
        filled.path(path).rename(filled.path(f"{path}.real"))
        script(filled, f'env >> /kt/env; exec {path}.real "$@"', path)
    env = {**HOSTILE, "RESTIC_PASSWORD": "hunter2", "TMPDIR": "/kt", "LC_ALL": "tlh"}
    result = call(filled, "--plain", "-c", "true", "kta/src", env=env)
    assert result.returncode == 0, result.stderr
    found = set(filled.path("/kt/env").read_text().splitlines())
    shells_own = re.compile("PWD=|OLDPWD=|SHLVL=|_=")
    assert {line for line in found if not shells_own.match(line)} == {
        f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8",
    }  # fmt: skip


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_no_file_of_ours(filled: Machine, closing: str):
    client = script(filled, "echo told; echo warned >&2")
    look = f"cat {RUN}/default.lock > /kt/lock"
    before = f"exec {closing}"
    result = call(filled, "--plain", "-c", client, "-p", look, "kta/src", before=before)
    assert result.returncode == 0, result
    assert re.fullmatch(r"\d+ \d+\n", filled.path("/kt/lock").read_text())
    assert filled.path(f"{RUN}/default.lock").read_text() == ""


# The module cannot be shadowed


def test_the_module_is_not_shadowed_by_the_callers_directory_or_environment(filled: Machine):
    evil = filled.path("/kt/evil")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    user = evil / f".local/lib/{version}/site-packages"
    for directory in (evil, user):
        (directory / "kopiatomic").mkdir(parents=True)
        for name in ("kopiatomic/__init__", "json", "shlex", "sitecustomize", "usercustomize"):
            code = f"open('/kt/fooled', 'a').write({name!r})\n"
            (directory / f"{name}.py").write_text(code)
    (user / "x.pth").write_text("import usercustomize\n")
    env = {
        "PYTHONPATH": "/kt/evil", "PYTHONHOME": "/kt/evil", "PYTHONUSERBASE": "/kt/evil/.local",
        "PYTHONINSPECT": "1", "PYTHONSTARTUP": "/kt/evil/json.py", "PYTHONPLATLIBDIR": "evil",
        "HOME": "/kt/evil",
    }  # fmt: skip
    for words in (["--plain", "-c", "true", "kta/src"], ["--check"], ["--version"], ["-h"]):
        result = call(filled, *words, before="cd /kt/evil", env=env)
        assert result.returncode == (1 if "--check" in words else 0), result.stderr
    assert not filled.path("/kt/fooled").exists()


# Argument lists never pass through a shell except where the user wrote shell


# As much of what means something to sh as a name can hold.
NASTY = ("$(touch fooled)", "`touch fooled`", "';touch fooled;'", '";touch fooled;"', "a\nb",
         "|touch fooled", "*", "~", "-rf", "$HOME", "\\", "& touch fooled #", " ")  # fmt: skip


def test_no_shell_reads_what_is_not_written_for_one(filled: Machine):
    for number, name in enumerate(NASTY):
        point = f"{TOP}/src/{name}"
        filled.run(["zfs", "create", "-o", f"mountpoint={point}", f"kta/n{number}"], check=True)
        filled.path(f"{point}/{name}").write_text("kept")
    client = script(filled, 'pwd > /kt/pwd; for each; do printf "%s\\0" "$each"; done > /kt/words')
    values = (f"'{name}'" if " #" in name else name for name in NASTY if "\n" not in name)
    filled.path("/kt/env").write_text("".join(f"V{n}={each}\n" for n, each in enumerate(values)))
    filled.path("/kt/env").chmod(0o600)
    targets = [f"kta/n{number}" for number in range(len(NASTY))]
    words = ["--plain", "-e", "/kt/env", "-c", shlex.join([client, *NASTY])]
    words += ["-o", shlex.join(NASTY), "-x", NASTY[0], "--lives", "", *targets]
    for by_call in (True, False) if filled.is_sandbox else (True,):
        if filled.is_sandbox:
            filled.host.nmount(by_call)  # without it, programs make the mounts
        result = call(filled, *words, before="cd /kt")
        assert result.returncode == 0, result.stderr
        given = filled.path("/kt/words").read_text().split("\0")[:-1]
        assert given[: 2 * len(NASTY)] == [*NASTY, *NASTY]
        assert sorted(given[2 * len(NASTY) :]) == sorted(f"{TOP}/src/{name}" for name in NASTY)
    # A name that can be no job's, dataset's or directory's is refused, and touches nothing.
    for name in NASTY:
        assert call(filled, "-j", name, "kta/src", before="cd /kt").returncode == 64, name
    for option in ("--live", "--expect", "--verify", "--forget", "--"):
        assert call(filled, option, NASTY[0], before="cd /kt").returncode != 0
    fooled = [each for each in names(filled, "/kt") if each.endswith("fooled")]
    assert fooled == []
    assert not filled.path("/fooled").exists()
    # Where the user did write shell, it is shell.
    hook = "echo hooked > /kt/hooked; cat < /dev/null | true && echo $((1 + 1)) >> /kt/hooked"
    assert call(filled, "--plain", "-c", "true", "-p", hook, "kta/src").returncode == 0
    assert filled.path("/kt/hooked").read_text() == "hooked\n2\n"


def test_no_value_of_periodic_conf_is_run_by_a_shell(tmp_path: Path):
    # Without blanks, so that it can be one word of a list, and with them; the first sign ends
    # the expansion of a variable whose name it may become a part of.
    value = "x}$(>/fooled)`>/fooled`;>/fooled;a[$(>/fooled)]|x&*"
    quoted = f"x'\"{value} {value}"
    machine = Sandbox(tmp_path / "host") if sys.platform.startswith("linux") else Jail()
    try:
        renderer().write(str(machine.path("/")), "/usr/local")
        for name in PROGRAMS:
            script(machine, "printf '%s\\0' \"$@\" >> /var/log/words", f"/usr/local/sbin/{name}")
        directory = machine.path("/usr/local/etc/periodic")
        scripts = sorted(each for each in directory.glob("*/[0-9]*"))
        texts = "".join(each.read_text() for each in scripts)
        variables = set(re.findall(r'^: "\$\{(\w+?)=', texts, re.M)) - {"_localbase"}
        # Which is for sh, and run by the script that has something to tell itself.
        variables = {name for name in variables if not name.endswith("_notify")}
        assert len(variables) > 100
        switches = ("enable", "all", "recursive", "plain", "prune", "maintenance", "period")
        proper = {name for name in variables if name.endswith(("_max_age", "_profiles"))}
        proper |= {name for name in variables if name.rpartition("_")[2] in switches}
        enabled = {name for name in variables if name.endswith("_enable")}
        # All of them; then those that are checked as they should be, so that the rest gets through.
        for spared, text in itertools.product((set(), enabled, proper), (value, quoted)):
            conf = "".join(f"{name}={shlex.quote(text)}\n" for name in sorted(variables - spared))
            conf += "".join(f"{name}=YES\n" for name in sorted(enabled & spared))
            machine.path("/etc/periodic.conf").write_text(conf)
            for each in scripts:
                machine.run([f"/usr/local/etc/periodic/{each.relative_to(directory)}"])
            assert not machine.path("/fooled").exists(), (sorted(spared), text)
        given = machine.path("/var/log/words").read_text().split("\0")
        assert min(given.count(value), given.count(quoted)) > 40
    finally:
        machine.close()


# The mounted snapshots can be reached by root only


def test_a_file_closed_since_the_snapshot_stays_closed_in_the_view(filled: Machine):
    secret = f"{TOP}/src/salaries"
    filled.path(secret).write_text("1,000,000")
    filled.path(secret).chmod(0o644)
    filled.path(TOP).chmod(0o755)
    assert as_other(filled, "cat", secret).stdout == "1,000,000"
    inside = f"{RUN}/default/view{secret}"
    with during(filled, "-s", f"chmod 600 {secret}", "kta/src"):
        # There it is, as open as it was.
        seen = filled.path(inside) if filled.path(inside).exists() else None
        assert seen is not None
        assert (seen.read_text(), stat.S_IMODE(seen.stat().st_mode)) == ("1,000,000", 0o644)
        for path in (secret, inside, f"{RUN}/default/../default/view/.{secret}"):
            result = as_other(filled, "cat", path)
            assert (result.returncode != 0, result.stdout) == (True, ""), path
            assert "Permission denied" in result.stderr, result.stderr
        for path in (RUN, f"{RUN}/default", f"{RUN}/default/view"):
            assert as_other(filled, "ls", path).stdout == ""
            assert as_other(filled, "sh", "-c", f"cd {path} && pwd").stdout == ""


@pytest.mark.linux(reason="no test owns the / of a real machine")
def test_the_clients_temporary_files_are_closed_where_we_make_their_directory(tmp_path: Path):
    machine = Sandbox(tmp_path / "host", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(machine.host)
        client = script(
            machine, "umask 000; echo secret > $TMPDIR/f; chmod 666 $TMPDIR/f; echo $TMPDIR;"
            "while [ ! -e $TMPDIR/go ]; do sleep 0.1; done", "/usr/local/bin/client",
        )  # fmt: skip
        process = machine.popen(
            [program(machine), "--plain", "-c", client, "-a", "--live", "/compat/linux"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True,
        )  # fmt: skip
        file = f"{RUN}/default/tmp/f"
        wait_for(lambda: machine.path(file).exists() or process.poll() is not None)
        try:
            tried = as_other(machine, "cat", file)
        finally:
            shell(machine, "if [ -d {0} ]; then : > {0}/go; fi".format(f"{RUN}/default/tmp"))
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 0, said
        assert f"{RUN}/default/tmp\n" in said
        assert "Permission denied" in tried.stderr
    finally:
        machine.close()


# What others can see


def test_no_secret_is_on_a_command_line(filled: Machine):
    filled.path("/kt/env").write_text("RESTIC_PASSWORD=correct-horse\nRESTIC_REPOSITORY=/r-e-p-o\n")
    filled.path("/kt/env").chmod(0o600)
    with during(filled, "-e", "/kt/env", "-r", "kta"):
        # This process sees those of the sandbox, too.
        seen = subprocess.run(["ps", "-axww", "-o", "args"], capture_output=True, text=True).stdout
    assert "/kt/waiter" in seen
    assert "correct-horse" not in seen
    assert "/r-e-p-o" not in seen
    if filled.is_sandbox:
        assert "correct-horse" not in str(filled.host.commands())
        assert "/r-e-p-o" not in str(filled.host.commands())


def test_the_history_is_closed_and_holds_no_secret(filled: Machine):
    filled.path("/kt/env").write_text("RESTIC_PASSWORD=correct-horse\n")
    filled.path("/kt/env").chmod(0o600)
    client = script(filled, "echo $RESTIC_PASSWORD; exit 1")
    began = time.time()
    told = ("-p", "echo correct-horse; exit 1")
    call(filled, "--plain", "-e", "/kt/env", "-c", client, *told, "kta/src")
    call(filled, "--plain", "-e", "/kt/env", "-c", client, "kta/src")
    history = filled.path(f"{STATE}/restomic.default.history")
    assert history.stat().st_mtime >= began - 1
    assert "[hidden]" in history.read_text()
    assert "correct-horse" not in history.read_text()
    assert as_other(filled, "cat", f"{STATE}/restomic.default.history").stdout == ""
