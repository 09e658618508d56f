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
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from port.build import SITE, Port, deinstall, install, needed

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

pytestmark = needed()

MODULE = f"usr/local/{SITE}/kopiatomic"


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
    words = {f"/{MODULE}/": "%%PYTHON_SITELIBDIR%%/kopiatomic/", "/usr/local/": "",
             f".cpython-{port.value('PYTHON_SUFFIX')}.": ".cpython-%%PYTHON_SUFFIX%%."}  # fmt: skip

    def lines(paths: set[str]) -> list[str]:
        for path, name in words.items():
            paths = {each.replace(path, name) for each in paths}
        return sorted(paths)

    return {"add": lines(staged - {*listed}), "remove": lines({*listed} - staged)}


def test_it_lists_what_was_staged_and_nothing_else(built: Port):
    assert differences(built) == {"add": [], "remove": []}


def test_it_lists_the_directories_that_are_made_empty(built: Port):
    ours = {each.path for each in built.plist() if each.kind == "dir"}
    empty = {f"/{path.relative_to(built.stage)}" for path in built.stage.rglob("*")
             if path.is_dir() and not any(path.iterdir())}  # fmt: skip
    # The framework's own, of BSD.local.dist.
    assert empty - {"/usr/local/sbin"} == ours == {"/var/db/kopiatomic"}


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
    assert set(re.findall(r"^%%PYTHON_SITELIBDIR%%/kopiatomic/(.*\.py)$", text, re.M)) == ours


def test_a_new_package_is_staged_and_the_packing_list_is_told_to_lack_it(tmp_path: Path):
    port = Port(tmp_path)
    new = port.directory / "src/kopiatomic/new"
    (new / "deep").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "deep/__init__.py", "deep/two.py"):
        (new / name).write_text('"""New."""\n')
        (new / name).chmod(0o600)
    port.make("package", env={"SOURCE_DATE_EPOCH": "1000000000"})
    top = "%%PYTHON_SITELIBDIR%%/kopiatomic/new"
    bytecode = [
        f"{top}/{directory}__pycache__/{name}.cpython-%%PYTHON_SUFFIX%%.{suffix}"
        for directory, name in (("", "__init__"), ("", "one"), ("deep/", "__init__"),
                                ("deep/", "two"))
        for suffix in ("opt-1.pyc", "pyc")
    ]  # fmt: skip
    sources = [f"{top}/__init__.py", f"{top}/deep/__init__.py", f"{top}/deep/two.py",
               f"{top}/one.py"]  # fmt: skip
    assert differences(port) == {"add": sorted(sources + bytecode), "remove": []}
    for path in (port.stage / MODULE / "new").rglob("*"):
        mode = 0o755 if path.is_dir() else 0o644
        assert path.stat().st_mode & 0o7777 == mode, path
        if path.suffix == ".pyc":
            code = marshal.loads(path.read_bytes()[16:])
            source = path.parents[1] / f"{path.name.split('.')[0]}.py"
            assert code.co_filename == f"/{source.relative_to(port.stage)}"


# Modes


MODES = {
    r"/usr/local/bin/[a-z]+": 0o555,
    r"/usr/local/etc/periodic/\w+/\d+\.[a-z-]+": 0o555,
    r"/usr/local/etc/rc\.d/\w+": 0o555,
    r"/usr/local/etc/kopiatomic/[a-z-]+\.env\.sample": 0o600,
    r"/usr/local/etc/kopiatomic/[a-z-]+\.sample": 0o700,
    rf"/{MODULE}/(\w+/)*\w+\.py": 0o644,
    rf"/{MODULE}/(\w+/)*__pycache__/\w+\.cpython-\d+(\.opt-1)?\.pyc": 0o644,
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
    first, *rest = (built.stage / "usr/local/bin" / program).read_text().splitlines()
    assert first == "#!/usr/local/bin/python3 -IXutf8"
    assert f'sys.path.append("/usr/local/{SITE}")' in rest
    assert f"from kopiatomic.cli import {program}" in rest


def test_python_cmd_is_honoured(tmp_path: Path):
    port = Port(tmp_path)
    port.make("package")
    text = (port.stage / "usr/local/bin/restomic").read_text()
    assert text.startswith(f"#!{sys.executable} -IXutf8\n")


def test_neither_environment_nor_directory_of_the_caller_are_trusted(tmp_path: Path):
    port = Port(tmp_path / "port", {"PREFIX": str(tmp_path / "there")})
    port.make("package")
    install(port, tmp_path / "root")
    (tmp_path / "root" / str(tmp_path)[1:] / "there").rename(tmp_path / "there")
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("kopiatomic", "json", "argparse", "sitecustomize"):
        (evil / f"{name}.py").write_text("import sys; sys.exit('evil')\n")
    said = subprocess.run(
        [tmp_path / "there/bin/restomic", "--version"], cwd=evil, check=False, text=True,
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
    assert "/opt/backup/bin/restomic" in script
    scripts = ((top / "etc" / name).rglob("*") for name in ("rc.d", "periodic"))
    samples = (*top.rglob("*.sample"), *top.rglob("share/examples/*/*.sh"))
    for path in (*samples, *itertools.chain(*scripts)):
        if path.is_file():
            assert "/usr/local" not in path.read_text(), path
    pages = list(top.rglob("*.gz"))
    assert pages
    for page in pages:
        text = gzip.decompress(page.read_bytes()).decode()
        # The PATH of what is run is the same, wherever the port is.
        text, paths = re.subn(r"(?<=:)/usr/local/s?bin\b", "", text)
        # One of the places that the view has always.
        text = text.replace(" , /usr , /usr/local , /var ,", "")
        assert paths == 2, page
        assert "/usr/local" not in text, page
    assert "/opt/backup/etc/kopiatomic" in (port.directory / "work/pkg-message").read_text()
    assert not (port.stage / "usr").exists()


def test_a_stage_elsewhere(tmp_path: Path):
    port = Port(tmp_path / "port", {"STAGEDIR": str(tmp_path / "stage")})
    port.make("package")
    assert (tmp_path / "stage/usr/local/bin/restomic").exists()
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
    assert len(found) == 2 * len(modules(port.stage / MODULE))
    return found


def test_bytecode_is_of_the_very_files_installed(built: Port):
    for path in bytecode(built):
        source = path.parents[1] / f"{path.name.split('.')[0]}.py"
        data = path.read_bytes()
        assert data[:4] == importlib.util.MAGIC_NUMBER
        flags, time, size = struct.unpack("<LLL", data[4:16])
        assert (flags, time, size) == (0, int(source.stat().st_mtime), source.stat().st_size)
        code = marshal.loads(data[16:])
        assert isinstance(code, CodeType)
        assert code.co_filename == f"/{source.relative_to(built.stage)}"


def test_with_source_date_epoch_bytecode_does_not_depend_on_times(tmp_path: Path):
    # pkg then gives the files of the package that time.
    port = Port(tmp_path)
    port.make("package", env={"SOURCE_DATE_EPOCH": "1000000000"})
    for path in bytecode(port):
        source = path.parents[1] / f"{path.name.split('.')[0]}.py"
        flags = struct.unpack("<L", path.read_bytes()[4:8])[0]
        assert flags == 0b11
        assert path.read_bytes()[8:16] == importlib.util.source_hash(source.read_bytes())


# Installing and deinstalling


def test_deinstalling_leaves_the_users_own_files_and_nothing_else(tmp_path: Path, built: Port):
    own = ("etc/kopiatomic/restic-home", "etc/periodic/daily/502.pgsql", "bin/restic")
    for name in own:
        path = tmp_path / "usr/local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("my own\n")
    before = picture(tmp_path / "usr/local")
    install(built, tmp_path)
    etc = tmp_path / "usr/local/etc/kopiatomic"
    assert (etc / "restic-myrepo.env").stat().st_mode & 0o7777 == 0o600
    assert (etc / "restic-myrepo").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "var/db/kopiatomic").stat().st_mode & 0o7777 == 0o700
    (etc / "kopia-myrepo").write_text("changed\n")
    deinstall(built, tmp_path)
    after = picture(tmp_path / "usr/local")
    assert after.pop("etc/kopiatomic/kopia-myrepo")
    assert {path: each[2] for path, each in after.items()} == {
        path: each[2] for path, each in before.items()
    }
    assert not (tmp_path / "var").exists()


def test_installing_leaves_a_file_of_the_user_as_it_is(tmp_path: Path, built: Port):
    path = tmp_path / "usr/local/etc/kopiatomic/restic-myrepo.env"
    path.parent.mkdir(parents=True)
    path.write_text("RESTIC_PASSWORD=mine\n")
    install(built, tmp_path)
    assert path.read_text() == "RESTIC_PASSWORD=mine\n"
    assert path.with_name("restic-myrepo.env.sample").exists()


# Its own tests


def test_the_test_target_runs_the_tests_on_what_was_extracted(tmp_path: Path):
    port = Port(tmp_path)
    said = port.make("test", "TEST_ARGS=tests/unit/test_redact.py -p no:cacheprovider")
    assert re.search(r"\d+ passed", said)
    # Nothing is missing there that any of the others reads at once.
    assert "tests collected" in port.make("test", "TEST_ARGS=--collect-only -q")
    assert f"rootdir: {port.value('WRKSRC')}" in said
