"""What the port builds: every file, its mode, its time, and that all builds are the same."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import itertools
import marshal
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from port.build import Port, deinstall, install, needed

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

pytestmark = needed()

MODULES = "usr/local/libexec/kopiatomic"
MODULE = f"{MODULES}/kopiatomic"


def picture(directory: Path) -> dict[str, tuple[int, float, str]]:
    """Mode of all, time and contents of files below a directory."""
    found: dict[str, tuple[int, float, str]] = {}
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        time, digest = 0.0, ""
        if path.is_file():
            time, digest = about.st_mtime, hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(directory))] = (about.st_mode, time, digest)
    return found


def contents(port: Port) -> dict[str, str]:
    """What was staged, without the times that bytecode bears."""
    return {
        path: digest
        for path, (_, _, digest) in picture(port.stage).items()
        if digest and not path.endswith(".pyc")
    }


# The packing list


def differences(port: Port) -> dict[str, list[str]]:
    """What has to be added to the packing list, and what removed, in its own words."""
    listed = sorted(each.path for each in port.plist() if each.kind != "dir")
    staged = set(port.staged())
    assert staged
    assert len(set(listed)) == len(listed)

    def lines(paths: set[str]) -> list[str]:
        return sorted(path.removeprefix("/usr/local/") for path in paths)

    return {"add": lines(staged - {*listed}), "remove": lines({*listed} - staged)}


def test_it_lists_what_was_staged_and_nothing_else(built: Port):
    assert differences(built) == {"add": [], "remove": []}


def test_it_lists_the_directories_that_are_made_empty(built: Port):
    ours = {each.path for each in built.plist() if each.kind == "dir"}
    empty = {f"/{path.relative_to(built.stage)}" for path in built.stage.rglob("*")
             if path.is_dir() and not any(path.iterdir())}  # fmt: skip
    # The framework's own, of BSD.local.dist.
    assert empty - {"/usr/local/bin", "/usr/local/lib"} == ours == {"/var/db/kopiatomic"}


@pytest.mark.parametrize("option", ["BASH", "EXAMPLES", "FISH", "ZSH"])
def test_it_follows_the_options(tmp_path: Path, option: str):
    port = Port(tmp_path, {"WITHOUT": option})
    port.make("package")
    left_out = [each.path for each in port.plist(disabled=True)]
    assert left_out
    assert all(option.lower() in path for path in left_out)
    assert sorted(each.path for each in port.plist() if each.kind != "dir") == sorted(port.staged())


def modules(directory: Path) -> set[str]:
    """Return the paths of the modules in a directory, those of packages below it as well."""
    found = {str(path.relative_to(directory)) for path in directory.rglob("*.py")}
    assert {"__init__.py", "cli.py"} <= found
    return found


def test_every_module_is_in_it(built: Port):
    ours = modules(built.directory / "src/kopiatomic")
    assert modules(built.stage / MODULE) == ours
    text = (built.directory / "pkg-plist").read_text()
    assert set(re.findall(r"^libexec/kopiatomic/kopiatomic/(.*\.py)$", text, re.M)) == ours


def test_no_version_of_python_is_in_the_packing_list_and_no_bytecode(built: Port):
    text = (built.directory / "pkg-plist").read_text()
    assert not re.search(r"python|\.pyc|__pycache__|%%PY", text.lower())
    # What a package of another Python lays elsewhere.
    assert not list(built.stage.rglob("site-packages"))
    assert sorted(str(path) for path in built.stage.rglob("*.pyc")) == sorted(
        f"{built.stage}{each.path}" for each in built.plist() if each.path.endswith(".pyc")
    )


def test_a_new_package_is_staged_and_the_packing_list_is_told_to_lack_it(tmp_path: Path):
    port = Port(tmp_path)
    new = port.directory / "src/kopiatomic/new"
    (new / "deep").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "deep/__init__.py", "deep/two.py"):
        (new / name).write_text('"""New."""\n')
        (new / name).chmod(0o600)
    port.make("package")
    top = "libexec/kopiatomic/kopiatomic/new"
    sources = [f"{top}/__init__.py", f"{top}/deep/__init__.py", f"{top}/deep/two.py",
               f"{top}/one.py"]  # fmt: skip
    assert differences(port) == {"add": sources, "remove": []}
    for path in (port.stage / MODULE / "new").rglob("*"):
        mode = 0o755 if path.is_dir() else 0o644
        assert path.stat().st_mode & 0o7777 == mode, path
        if path.suffix == ".pyc":
            code = marshal.loads(path.read_bytes()[16:])
            source = path.parents[1] / f"{path.name.split('.')[0]}.py"
            assert code.co_filename == f"/{source.relative_to(port.stage)}"


# Modes


MODES = {
    r"/usr/local/sbin/[a-z]+": 0o555,
    r"/usr/local/etc/periodic/\w+/\d+\.[a-z-]+": 0o555,
    r"/usr/local/etc/rc\.d/\w+": 0o555,
    r"/usr/local/etc/kopiatomic/[a-z-]+\.env\.sample": 0o600,
    r"/usr/local/etc/kopiatomic/[a-z-]+\.sample": 0o700,
    rf"/{MODULE}/(\w+/)*\w+\.py": 0o644,
    rf"/{MODULE}/(\w+/)*__pycache__/\w+\.cpython-\d+\.pyc": 0o644,
    r"/usr/local/share/man/man8/\w+\.8\.gz": 0o444,
    r"/usr/local/share/examples/kopiatomic/\w+\.sh": 0o555,
    r"/usr/local/share/(bash-completion|fish|zsh)/\S+": 0o644,
    r"/var/db/kopiatomic": 0o700,
}


def test_every_mode_is_the_one_meant(built: Port):
    for each in built.plist():
        (mode,) = (mode for form, mode in MODES.items() if re.fullmatch(form, each.path))
        assert Path(f"{built.stage}{each.path}").stat().st_mode & 0o7777 == mode, each.path
        # Where others must not read, the packing list itself says so; for rc.d the framework.
        said = 0o755 if "/rc.d/" in each.path else None
        assert each.mode == (said if mode & 0o004 else mode), each.path
        assert (each.owner, each.group) == ("root", "wheel")


def test_nothing_is_writable_by_others_nor_setuid(built: Port):
    for path, (mode, _, _) in picture(built.stage).items():
        assert not mode & 0o6022, path


# The programs


@pytest.mark.parametrize("program", ["kopiatomic", "restomic"])
def test_a_program_is_started_isolated_by_the_python_of_the_port(built: Port, program: str):
    first, *rest = (built.stage / "usr/local/sbin" / program).read_text().splitlines()
    # B: it writes no bytecode, which pkg(8) would not know of.
    assert first == "#!/usr/local/bin/python3 -BIXutf8"
    assert f'sys.path.insert(0, "/{MODULES}")' in rest
    assert f"from kopiatomic.cli import {program}" in rest


def test_python_cmd_is_honoured(tmp_path: Path):
    port = Port(tmp_path)
    port.make("package")
    text = (port.stage / "usr/local/sbin/restomic").read_text()
    assert text.startswith(f"#!{sys.executable} -BIXutf8\n")


def test_neither_environment_nor_directory_of_the_caller_are_trusted(tmp_path: Path):
    port = Port(tmp_path / "port", {"PREFIX": str(tmp_path / "there")})
    there = installed(port, tmp_path)
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("kopiatomic", "json", "argparse", "sitecustomize"):
        (evil / f"{name}.py").write_text("import sys; sys.exit('evil')\n")
    said = subprocess.run(
        [there / "sbin/restomic", "--version"], cwd=evil, check=False, text=True,
        env={**os.environ, "PYTHONPATH": str(evil), "PYTHONSTARTUP": str(evil / "json.py")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout
    assert port.value("DISTVERSION") in said.stdout


# PREFIX


def test_prefix_is_honoured(tmp_path: Path):
    port = Port(tmp_path, {"PREFIX": "/opt/backup", "LOCALBASE": "/usr/local"})
    port.make("package")
    assert sorted(each.path for each in port.plist() if each.kind != "dir") == sorted(port.staged())
    top = port.stage / "opt/backup"
    script = (top / "etc/periodic/daily/800.restomic").read_text()
    assert "/opt/backup/sbin/restomic" in script
    # periodic.conf is where base looks for it.
    assert ': "${_localbase:=/usr/local}"\n' in script
    scripts = ((top / "etc" / name).rglob("*") for name in ("rc.d", "periodic"))
    samples = (*top.rglob("*.sample"), *top.rglob("share/examples/*/*.sh"))
    for path in (*samples, *itertools.chain(*scripts)):
        if path.is_file():
            text = re.sub(r"(_localbase:=|does not find )/usr/local", "", path.read_text())
            assert "/usr/local" not in text, path
    pages = list(top.rglob("*.gz"))
    assert pages
    for page in pages:
        text = gzip.decompress(page.read_bytes()).decode()
        # The PATH of what is run is the same, wherever the port is.
        text, paths = re.subn(r"(?<=:)/usr/local/s?bin\b", "", text)
        # One of the places that the view has always.
        text = text.replace(" , /usr , /usr/local , /var ,", "")
        # The installation medium has its packages where pkg(8) puts them.
        text = text.replace("mount -t tmpfs tmpfs /usr/local\n", "")
        assert paths == 2, page
        assert "/usr/local" not in text, page
    assert "/opt/backup/etc/kopiatomic" in (port.directory / "work/pkg-message").read_text()
    assert not (port.stage / "usr").exists()


def test_a_stage_elsewhere(tmp_path: Path):
    port = Port(tmp_path / "port", {"STAGEDIR": str(tmp_path / "stage")})
    port.make("package")
    assert (tmp_path / "stage/usr/local/sbin/restomic").exists()
    assert not port.stage.exists()


# The same every time


def test_building_again_gives_the_same(tmp_path: Path, built: Port):
    again = Port(tmp_path / "elsewhere", built.variables, built)
    before = os.umask(0o077)
    try:
        again.make("package", env={"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"})
    finally:
        os.umask(before)
    one, two = picture(built.stage), picture(again.stage)
    # Modes of directories that pkg makes as needed are the builder's.
    assert {path: each[1:] for path, each in two.items()} == {
        path: each[1:] for path, each in one.items()
    }
    assert {path: each[0] for path, each in two.items() if each[2]} == {
        path: each[0] for path, each in one.items() if each[2]
    }


def test_staging_a_second_time_changes_nothing(tmp_path: Path):
    port = Port(tmp_path)
    port.make("package")
    before = picture(port.stage)
    for cookie in ("build", "stage"):
        (port.directory / f"work/.{cookie}_done").unlink()
    shutil.rmtree(port.stage)
    port.make("package")
    assert picture(port.stage) == before


def test_the_checkout_is_left_alone(tmp_path: Path):
    port = Port(tmp_path)
    before = picture(tmp_path)
    port.make("package")
    shutil.rmtree(tmp_path / "work")
    assert picture(tmp_path) == before


def test_no_path_of_the_builder_is_in_it(built: Port):
    for path in built.stage.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            assert str(built.directory).encode() not in data, path


def _serves(python: str, script: str, site: str, user: int) -> bool:
    try:
        return not subprocess.run(
            [python, "-c", script], env={"PYTHONPATH": site}, cwd="/", check=False,
            user=user, group=user, extra_groups=[], stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip
    except OSError:
        return False


@pytest.fixture
def ordinary() -> Iterator[tuple[Path, int, str, str]]:
    """A directory of an ordinary user, the user, and a python with jinja2 for them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    user = 65534
    directory = Path(tempfile.mkdtemp(prefix="kopiatomic-port-"))
    os.chown(directory, user, user)
    site = os.path.dirname(os.path.dirname(importlib.util.find_spec("jinja2").origin))
    script = f"import jinja2, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
            if _serves(python, script, site, user):
                yield directory, user, python, site
                return
        pytest.skip("no python with jinja2 that every user may run")
    finally:
        shutil.rmtree(directory)


def test_an_ordinary_user_can_build_it(ordinary: tuple[Path, int, str, str], built: Port):
    directory, user, python, site = ordinary
    port = Port(directory / "port", {**built.variables, "PYTHON_CMD": python}, built)
    for path in (port.directory, *port.directory.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)
    port.make("package", user=user, env={"PYTHONPATH": site})
    assert {path.stat().st_uid for path in port.stage.rglob("*")} == {user}
    assert contents(port) == contents(built)
    assert sorted(port.staged()) == sorted(built.staged())


def test_a_release_is_built_from_its_tarball(tmp_path: Path, built: Port):
    source = Port(tmp_path / "source", like=built)
    version = source.value("DISTVERSION")
    tarball = tmp_path / f"kopiatomic-kopiatomic-{version}_GH0.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(source.directory, arcname=f"kopiatomic-{version}")
    # What a ports tree has.
    variables = {**built.variables, "DISTDIR": str(tmp_path)}
    port = Port(tmp_path / "sysutils/kopiatomic", variables, built)
    for path in list(port.directory.iterdir()):
        if path.name not in ("Makefile", "pkg-descr", "pkg-plist", "files"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in list((port.directory / "files").iterdir()):
        if path.name not in ("pkg-message.in", "kopiatomic_sweep.in"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    port.make("package")
    assert contents(port) == contents(built)
    assert sorted(port.staged()) == sorted(built.staged())


# Bytecode


def bytecode(port: Port) -> list[Path]:
    found = sorted((port.stage / MODULE).rglob("*.pyc"))
    assert len(found) == len(modules(port.stage / MODULE))
    return found


@pytest.mark.parametrize("epoch", [{}, {"SOURCE_DATE_EPOCH": "1000000000"}])
def test_bytecode_is_of_the_very_files_installed_whatever_their_times(tmp_path: Path, epoch: dict):
    port = Port(tmp_path)
    port.make("package", env=epoch)
    for path in bytecode(port):
        source = path.parents[1] / f"{path.name.split('.')[0]}.py"
        data = path.read_bytes()
        assert data[:4] == importlib.util.MAGIC_NUMBER
        # It has the hash of its source, and that is compared at each start.
        assert data[4:8] == b"\3\0\0\0"
        assert data[8:16] == importlib.util.source_hash(source.read_bytes())
        code = marshal.loads(data[16:])
        assert isinstance(code, CodeType)
        assert code.co_filename == f"/{source.relative_to(port.stage)}"


def installed(port: Port, tmp_path: Path) -> Path:
    """Install a port that was made for the prefix `tmp_path`/there; return that prefix."""
    port.make("package")
    install(port, tmp_path / "root")
    (tmp_path / "root" / str(tmp_path)[1:] / "there").rename(tmp_path / "there")
    return tmp_path / "there"


def test_a_program_starts_from_the_bytecode_and_writes_none(tmp_path: Path):
    there = installed(Port(tmp_path / "port", {"PREFIX": str(tmp_path / "there")}), tmp_path)
    first, *rest = (there / "sbin/restomic").read_text().splitlines()
    script = "\n".join(rest).replace("sys.exit(restomic())", "")
    python = [*first.removeprefix("#!").split(), "-v", "-c", f"{script}\nimport kopiatomic.state"]

    def read() -> tuple[int, int]:
        told = subprocess.run(python, check=True, capture_output=True, text=True).stderr
        return told.count(f"matches {there}/libexec"), told.count("# wrote ")

    before = picture(there)
    served, written = read()
    assert served >= 3
    assert written == 0
    # Files whose times were lost, and then a Python that cannot use what is there.
    for path in there.rglob("*.py"):
        os.utime(path, (1, 1))
    assert read() == (served, 0)
    for path in there.rglob("*.pyc"):
        path.unlink()
    assert read() == (0, 0)
    after = picture(there)
    assert set(before) - set(after) == {each for each in before if each.endswith(".pyc")}
    assert set(after) <= set(before)


# Installing and deinstalling


def test_deinstalling_leaves_the_users_own_files_and_nothing_else(tmp_path: Path, built: Port):
    own = ("etc/kopiatomic/restic-home", "etc/periodic/daily/502.pgsql", "bin/restic")
    for name in own:
        path = tmp_path / "usr/local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("my own\n")
    before = picture(tmp_path / "usr/local")
    install(built, tmp_path)
    assert (tmp_path / "var/db/kopiatomic").stat().st_mode & 0o7777 == 0o700
    deinstall(built, tmp_path)
    after = picture(tmp_path / "usr/local")
    assert {path: each[2] for path, each in after.items()} == {
        path: each[2] for path, each in before.items()
    }
    assert not (tmp_path / "var").exists()


def test_samples_stay_samples_and_an_upgrade_replaces_them_alone(tmp_path: Path, built: Port):
    etc = tmp_path / "usr/local/etc/kopiatomic"
    install(built, tmp_path)
    fresh = picture(etc)
    assert set(fresh) == {f"{client}-myrepo{end}.sample" for client in ("kopia", "restic")
                          for end in ("", ".env")}  # fmt: skip
    (etc / "restic-myrepo.env").write_text("RESTIC_PASSWORD=mine\n")
    (etc / "restic-myrepo.sample").write_text("of an earlier version\n")
    install(built, tmp_path)
    after = picture(etc)
    assert after.pop("restic-myrepo.env")
    assert after == fresh
    assert (etc / "restic-myrepo.env").read_text() == "RESTIC_PASSWORD=mine\n"


# Its own tests


def test_the_test_target_runs_the_tests_on_what_was_extracted(tmp_path: Path):
    port = Port(tmp_path)
    names = "tests/unit/test_redact.py tests/port/test_documents.py"
    said = port.make("test", f"TEST_ARGS={names} -p no:cacheprovider")
    assert re.search(r"\d+ passed", said)
    # Nothing is missing there that any of the others reads at once.
    assert "tests collected" in port.make("test", "TEST_ARGS=--collect-only -q")
    assert f"rootdir: {port.value('WRKSRC')}" in said
