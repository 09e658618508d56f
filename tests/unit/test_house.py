"""What holds for the house as a whole."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "kopiatomic"
TEMPLATES = SOURCE.parents[1] / "periodic"
FILES = sorted(SOURCE.rglob("*.py"))
assert FILES, "there is nothing to check"
MODULES = {
    str(each.relative_to(SOURCE).with_suffix("")) for each in FILES if each.name != "__init__.py"
}
TESTS = Path(__file__).resolve().parent


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, with the names taken from our own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_is_ever_deleted_recursively(path: Path):
    text = path.read_text()
    assert not re.search(r"\brmtree\b|\bremovedirs\b|rm\s+-\w*[rR]|--recursive-delete", text)
    assert "shutil" not in imports(path)
    assert "find" not in re.findall(r'"(find|rm|rsync|mv|xargs)"', text)


def test_the_scripts_delete_nothing():
    for path in TEMPLATES.rglob("*.j2"):
        assert not re.search(r"^\s*(rm|rmdir|unlink|find)\b", path.read_text(), re.M), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_standard_library_is_needed(path: Path):
    for name in imports(path):
        top = name.partition(".")[0]
        assert top == "kopiatomic" or top in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_programs_are_started_through_the_one_door(path: Path):
    if path.name == "command.py":
        return
    text = path.read_text()
    assert not re.search(r"os\.(system|popen|exec|spawn|posix_spawn)", text)
    assert not re.search(r"subprocess\.(run|call|check_|Popen\()", text)
    assert "shell=True" not in text


# What may import what: each package those before it, and what stands at the top of the house.
LAYERS = [
    {"digest", "errors", "record"},
    {"system"},
    {"formatting", "job", "lists", "state", "environment", "redact", "client_rows"},
    {"clients", "layout"},
    {"backup", "repository"},
    {"monitoring"},
    {"commands"},
    {"usage"},
    {"cli"},
]


def place_of(name: str) -> str:
    """Return the package or top module that a module's dotted name belongs to."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path):
    ours = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if ours == "__init__":
        return
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for name in imports(path):
        if not name.startswith("kopiatomic.") or name == "kopiatomic.__version__":
            continue
        theirs = place_of(name)
        assert theirs == ours or level[theirs] <= level[ours], f"{ours} imports {name}"
        if level[theirs] == level[ours] and theirs != ours:
            assert ours in LAYERS[2], f"{ours} and {theirs} are neighbours"


def test_every_place_in_the_house_has_its_layer():
    there = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert there - {"__init__"} == set().union(*LAYERS)


# The words of the clients: an option, a variable, a message, a name of a subcommand.
CLIENTS_WORDS = re.compile(
    r"\bkopia\b(?!-)|\brestic\b|\b(?:RESTIC|KOPIA|RCLONE)_|\bjob\.program [!=]="
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_clients_know_a_client(path: Path):
    place = path.relative_to(SOURCE).parts[0]
    if place in ("clients", "usage.py"):
        return
    assert not imports(path) & {"kopiatomic.clients.kopia", "kopiatomic.clients.restic"}
    code = ast.parse(path.read_text())
    for node in ast.walk(code):
        described = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if described and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    assert not CLIENTS_WORDS.findall(ast.unparse(code)), path


def test_only_the_commands_check_for_root():
    for path in FILES:
        if path.parent.name != "commands":
            assert "need_root" not in path.read_text(), path


PURE = ["backup/plan", "backup/selection", "system/machine", "job", "errors"]


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_knows_no_program_and_no_file(name: str):
    touched = imports(SOURCE / f"{name}.py") & {"os", "subprocess", "kopiatomic.system.command"}
    assert not touched


def under_test() -> set[str]:
    """Return what the test files are named after, as a module's path would be."""
    found = [each.relative_to(TESTS) for each in TESTS.rglob("test_*.py")]
    # What is long may have a file of its own: process_of_hooks goes with process.
    names = (each.stem.removeprefix("test_").partition("_of_")[0] for each in found)
    return {str(each.with_name(name)) for each, name in zip(found, names, strict=True)}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_has_a_test_file_of_its_name(name: str):
    assert name in under_test()


def test_every_test_file_has_a_module_of_its_name():
    assert under_test() - MODULES == {"house"}


def test_there_is_no_global_state():
    for path in FILES:
        assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Global)]


def test_the_tests_need_no_more_than_freebsds_python_has():
    """Its sqlite3, which the sandbox host keeps its state in, is a package of its own."""
    code = (
        "import sys, pytest\n"
        "sys.modules['sqlite3'] = sys.modules['_sqlite3'] = None\n"
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE.parent.parent, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:]


@pytest.mark.parametrize(("lacks", "name", "reason"), [
    ("import time; vars(time).pop('tzset', None)",
     "unit/clients/test_restic.py::TestBackupCommand::test_in_full",
     "this Python has no time.tzset"),
    ("sys.modules['sqlite3'] = sys.modules['_sqlite3'] = None", "standins/test_programs.py",
     "the sandbox needs a Python with sqlite3"),
])  # fmt: skip
def test_what_this_python_lacks_is_said_where_a_test_needs_it(lacks: str, name: str, reason: str):
    if "sandbox" in reason and (not sys.platform.startswith("linux") or os.geteuid() != 0):
        pytest.skip("the sandbox is not for this machine anyway")
    words = ["-q", "-rs", "-p", "no:cacheprovider", str(TESTS.parent / name)]
    code = f"import sys, pytest\n{lacks}\nsys.exit(pytest.main({words!r}))\n"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE.parent.parent, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:]
    assert reason in result.stdout
    assert "passed" not in result.stdout


# What a test measures may end a wait, and nothing else.
MEASURED = re.compile(
    r"^ *assert .*\b(?:monotonic|process_time|perf_counter|time\.time)\(\).*$", re.M
)


def test_no_test_asserts_a_time():
    for path in TESTS.parent.rglob("*.py"):
        for line in MEASURED.findall(path.read_text()):
            assert re.search(r"< deadline\b", line), f"{path}: {line}"


def test_a_backup_starts_without_modules_that_take_long_to_import():
    """`dataclasses` brings inspect, ast, dis and tokenize, a third of all the imports.

    `tempfile` brings shutil, with three compressors, and random. `typing` is large, and its
    NamedTuple slow: see kopiatomic/record.py.
    """
    code = (
        "import sys; before = set(sys.modules)\n"
        "import kopiatomic.cli, kopiatomic.commands.backup, kopiatomic.clients as clients\n"
        "[client() for client in clients.TABLE.values()]\n"
        "print(*sorted({'dataclasses', 'inspect', 'asyncio', 'email', 'http',"
        " 'random', 'shutil', 'tempfile', 'typing', 'urllib'}"
        " & (set(sys.modules) - before)))\n"
    )
    python = [sys.executable, "-I", "-c", f"import sys; sys.path.append({str(SOURCE.parent)!r})\n"]
    python[-1] += code
    result = subprocess.run(python, capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
