"""The port, built by bmake with the stand-in for the framework, and what its packing list says.

A packing list is installed and deinstalled here as pkg(8) does it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FRAMEWORK = Path(__file__).resolve().parent / "framework"
BMAKE = shutil.which("bmake") or ""


def needed() -> list[pytest.MarkDecorator]:
    """Return the marks of tests that build the port here."""
    return [
        pytest.mark.skipif(
            not sys.platform.startswith("linux"), reason="FreeBSD has the real framework"
        ),
        pytest.mark.skipif(not BMAKE, reason="needs bmake"),
        pytest.mark.skipif(
            not (CHECKOUT / "Makefile").exists(), reason="needs the port, beside the sources"
        ),
    ]


@dataclass(frozen=True)
class Entry:
    """A line of a packing list."""

    kind: str
    path: str
    mode: int | None = None
    owner: str = "root"
    group: str = "wheel"


class Port:
    """A copy of the checkout to build the port in."""

    def __init__(
        self, directory: Path, variables: Mapping[str, str] | None = None, like: Port | None = None
    ) -> None:
        self.directory = directory
        self.names: list[str] = like.names if like else files()
        self.variables = {
            "PYTHON_CMD": sys.executable,
            "PYTHON_VER": f"{sys.version_info[0]}.{sys.version_info[1]}",
            **(variables or {}),
        }
        directory.mkdir(parents=True, exist_ok=True)
        for name in self.names:
            source = (like.directory if like else CHECKOUT) / name
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, directory / name, follow_symlinks=False)

    @property
    def stage(self) -> Path:
        """What is packed."""
        return self.directory / "work" / "stage"

    def make(
        self, *words: str, user: int | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run bmake, expect it to succeed, and return what it printed."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(env or {})}
        options = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        result = subprocess.run(
            [BMAKE, "-m", FRAMEWORK, *variables, *words], cwd=self.directory, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout
        return result.stdout

    def value(self, name: str) -> str:
        """Return the value of a variable."""
        return self.make("-V", name).strip()

    def plist(self, disabled: bool = False) -> Iterator[Entry]:
        """Return what the packing list of what was staged says, or what options took out of it."""
        prefix = self.value("PREFIX")
        for line in Path(self.value("TMPPLIST")).read_text().splitlines():
            if line.startswith("@comment ") == disabled:
                yield entry(line.removeprefix("@comment "), prefix)
        # These the framework adds itself.
        for name in () if disabled else self.value("USE_RC_SUBR").split():
            yield entry(f"@(root,wheel,0755) etc/rc.d/{name}", prefix)

    def staged(self) -> Iterator[str]:
        """Return the absolute path of each file that was staged."""
        for path in sorted(self.stage.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield f"/{path.relative_to(self.stage)}"


def files() -> list[str]:
    """Return the names of the files of this checkout, tracked and new, or of this tarball."""
    git = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "-co", "--exclude-standard"]
    if (CHECKOUT / ".git").exists():
        listed = subprocess.run(git, check=True, stdout=subprocess.PIPE, text=True).stdout
        names = listed.split("\0")[:-1]
    else:
        ours = ("Makefile", "Makefile.local", "LICENSE", "*.md", "docs/*", "pyproject.toml",
                "pkg-*", "src/**/*", "files/**/*", "periodic/**/*", "tests/**/*")  # fmt: skip
        names = [str(each.relative_to(CHECKOUT)) for name in ours for each in CHECKOUT.glob(name)]
    return [name for name in names if (CHECKOUT / name).is_file() and "__pycache__" not in name]


def entry(line: str, prefix: str) -> Entry:
    """Read a line of a packing list."""
    match = re.fullmatch(
        r"(?:@(?P<keyword>[a-z]*)(?:\((?P<owner>\w*),(?P<group>\w*),(?P<mode>[0-7]*)\))? )?"
        r"(?P<path>[^@%\s]\S*)", line,
    )  # fmt: skip
    assert match, line
    assert match["keyword"] in (None, "", "dir"), line
    return Entry(
        match["keyword"] or "file", os.path.join(prefix, match["path"]),
        int(match["mode"], 8) if match["mode"] else None,
        match["owner"] or "root", match["group"] or "wheel",
    )  # fmt: skip


def install(port: Port, root: Path) -> None:
    """Install the package into a root directory, over what an earlier one has there."""
    for each in port.plist():
        source, target = Path(f"{port.stage}{each.path}"), Path(f"{root}{each.path}")
        if each.kind == "dir":
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(source, target)
        target.chmod(source.stat().st_mode & 0o7777 if each.mode is None else each.mode)
        assert (each.owner, each.group) == ("root", "wheel")
        if os.geteuid() == 0:
            os.chown(target, 0, 0)


def deinstall(port: Port, root: Path) -> None:
    """Take the package out of a root directory again."""
    directories = set()
    for each in port.plist():
        target = Path(f"{root}{each.path}")
        if each.kind == "dir":
            directories.add(target)
        else:
            target.unlink()
        directories.update(parent for parent in target.parents if root in parent.parents)
    for directory in sorted(directories, reverse=True):
        if not any(directory.iterdir()):
            directory.rmdir()
