#!/usr/bin/env python3
"""Set up what tests, demo and linters need: a venv, a few tools, the real clients.

    python3 tests/prepare.py                    for `make test`
    python3 tests/prepare.py --lint             for `make lint`
    python3 tests/prepare.py --demo             what `make demo` needs to begin
    python3 tests/prepare.py --demo NAME ...    and what it needs later: a venv, these clients;
                                                where it saves a build, Debian's restic serves

One line for each thing done, nothing where all is there already. What was tried and could not
be had is not tried again before `make clean`. From the environment:

    KOPIATOMIC_RESTIC, KOPIATOMIC_KOPIA, KOPIATOMIC_REST_SERVER
                      a program to use instead of the pinned one
    KOPIATOMIC_GO     the go to build with; `none`: build nothing
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from support import clients

CHECKOUT = Path(__file__).resolve().parent.parent
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
INSTALLED = VENV / "installed.json"
FAILED = VENV / "failed.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kopiatomic-tests"
SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/local/bin:/usr/sbin:/sbin"
INTERVAL = 5.0  # seconds between two lines on how far a build is
LINUX = sys.platform.startswith("linux")

# Pure Python wheels all, for FreeBSD; hypothesis is so up to this version. (MarkupSafe comes
# with an optional part in C that it does without where there is no compiler.)
TESTING = {
    "jinja2": "3.1.6",
    "markupsafe": "3.0.4",
    "pytest": "9.2.0",
    "iniconfig": "2.3.1",
    "packaging": "26.3",
    "pluggy": "1.7.0",
    "pygments": "2.21.0",
    "pytest-subprocess": "1.6.0",
    "hypothesis": "6.155.7",
    "sortedcontainers": "2.4.0",
}
if LINUX:
    # Several test files at once; on FreeBSD the tests share the machine itself.
    TESTING |= {"pytest-xdist": "3.8.0", "execnet": "2.1.2"}
# The demo makes do with what renders templates.
DEMO = {name: TESTING[name] for name in ("jinja2", "markupsafe")}
LINTING = {"ruff": "0.17.6", "mypy": "2.4.1"}


class Tool(NamedTuple):
    """A command, the Debian package it is in, what it is for, and for whom."""

    command: str
    package: str
    purpose: str
    linting: bool = False
    demo: bool = False


TOOLS = (
    Tool(
        "mkfs.btrfs",
        "btrfs-progs",
        "snapshots in the sandbox, copies of the files without",
        demo=True,
    ),
    Tool("dash", "dash", "the sandbox's sh", demo=True),
    Tool("busybox", "busybox", "small commands in the sandbox", demo=True),
    Tool("bmake", "bmake", "the tests of the port"),
    Tool("zsh", "zsh", "the tests of its completion"),
    Tool("fish", "fish", "the tests of its completions"),
    Tool("shellcheck", "shellcheck", "checks of shell scripts", linting=True),
    Tool("mandoc", "mandoc", "checks of manual pages", linting=True),
)


class Source(NamedTuple):
    """A client or server to build: Go module, version, oldest Go that does, what and how.

    `without` is what is left out where it cannot be had.
    """

    name: str
    without: str
    module: str
    version: str
    go: tuple[int, int]
    target: str
    options: tuple[str, ...]
    package: str | None

    @property
    def built(self) -> Path:
        """Where it is once built, for all checkouts of this user."""
        return CACHE / f"{self.name}-{self.version}" / self.name


SOURCES = (
    Source(
        name="restic",
        without="the restic half is",
        module="github.com/restic/restic",
        version="0.18.1",
        go=(1, 23),
        target="./cmd/restic",
        options=("-ldflags=-s -w",),
        package="restic",
    ),
    Source(
        name="kopia",
        without="the kopia half is",
        module="github.com/kopia/kopia",
        version="0.22.3",
        go=(1, 25),
        target=".",
        options=(
            "-tags=nohtmlui",
            "-ldflags=-s -w -X github.com/kopia/kopia/repo.BuildVersion=0.22.3",
        ),
        package=None,
    ),
    Source(
        name="rest-server",
        without="the tests of machines that share one are",
        module="github.com/restic/rest-server",
        version="0.14.0",
        go=(1, 23),
        target="./cmd/rest-server",
        options=("-ldflags=-s -w",),
        package=None,
    ),
)


def main() -> None:
    """Prepare for tests; or, as the arguments say, for linters or the demo."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this script runs before any check)
        sys.exit(f"prepare: Python 3.11 or later is needed, this is {sys.version.split()[0]}")
    # What is half made is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("prepare: told to end"))
    match sys.argv[1:]:
        case ["--lint"]:
            venv(TESTING | LINTING)
            tools([tool for tool in TOOLS if tool.linting])
        case ["--demo"]:
            tools([tool for tool in TOOLS if tool.demo])
        case ["--demo", *names]:
            venv(DEMO)
            for source in SOURCES:
                if source.name in names:
                    write_clients([(source.name, at_once(source) or client(source))])
        case _:
            venv(TESTING)
            tools(TOOLS)
            write_clients([(source.name, client(source)) for source in SOURCES])


# Python packages


def venv(wanted: dict[str, str]) -> None:
    """Have the wanted packages in .venv, made anew where it is unusable."""
    installed = _read(INSTALLED)
    usable = bool(installed) and _run([str(PYTHON), "-c", "import jinja2"]) is None
    if usable and wanted.items() <= installed.items():
        return
    if not LINUX and all(find_spec(name.replace("-", "_")) for name in wanted):
        say("the system's Python packages serve, in .venv")
        _make_venv("--system-site-packages", "--without-pip")
    else:
        if not usable or not (VENV / "bin" / "pip").exists():
            _make_venv()
        say("installing " + ", ".join(f"{name} {wanted[name]}" for name in wanted))
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _must([*pip, *(f"{name}=={version}" for name, version in wanted.items())])
    _write(INSTALLED, (installed if usable else {}) | wanted)


def _make_venv(*options: str) -> None:
    base = getattr(sys, "_base_executable", sys.executable)
    if "--without-pip" not in options and not find_spec("ensurepip"):
        complaint = _apt(["python3-venv"])
        if complaint:
            sys.exit(f"prepare: Python's venv and ensurepip are needed: {complaint}")
    say(f"making .venv with {base}")
    _must([base, "-m", "venv", "--clear", *options, str(VENV)])


# Tools


def tools(wanted: Iterable[Tool]) -> None:
    """Install the tools that are not there; say which cannot be had, and what for."""
    lacking = [tool for tool in wanted if not shutil.which(tool.command, path=SEARCH)]
    failed = _read(FAILED)
    fresh = [tool.package for tool in lacking if tool.package not in failed]
    if fresh and _has_apt() and _apt(fresh):
        for package in fresh:
            _try(package, partial(_apt, [package]))
    for tool in lacking:
        if not shutil.which(tool.command, path=SEARCH):
            say(f"no {tool.command} (Debian's {tool.package}), it is for: {tool.purpose}")


def _has_apt() -> bool:
    return LINUX and os.geteuid() == 0 and bool(shutil.which("apt-get"))


def _apt(packages: list[str]) -> str | None:
    if not _has_apt():
        return f"have {' '.join(packages)} installed by root"
    say("installing " + ", ".join(packages))
    options = ["-qq", "-o", "DPkg::Lock::Timeout=300"]
    install = ["apt-get", *options, "-y", "--no-install-recommends", "install", *packages]
    if _run(install) is None:
        return None
    _apt_update()
    return _run(install)


@cache
def _apt_update() -> None:
    _run(["apt-get", "-qq", "update"])


# Clients


def client(source: Source) -> clients.Client:
    """The first to be had: named by the user, built, PATH's, Debian's; else the reason."""
    if os.environ.get(clients.variable(source.name)):
        return clients.find(source.name)
    reason = _build(source)
    if reason is None:
        return clients.Client(source.built, source.version)
    found = clients.look(source.name, reason)
    if not found.path and source.package and _has_apt():
        _try(source.package, partial(_apt, [source.package]))
        found = clients.look(source.name, reason)
    return found


def at_once(source: Source) -> clients.Client | None:
    """The client if it need not be built: named or built already, PATH's, or Debian's."""
    if os.environ.get(clients.variable(source.name)) or os.access(source.built, os.X_OK):
        return client(source)
    if source.package is None:
        return None
    found = clients.look(source.name, "")
    if not found.path and _has_apt():
        _try(source.package, partial(_apt, [source.package]))
        found = clients.look(source.name, "")
    return found if found.path else None


def _build(source: Source) -> str | None:
    if os.access(source.built, os.X_OK):
        return None
    oldest = ".".join(map(str, source.go))
    go, seen = _go(source.go)
    if go is None:
        return (
            f"no {source.name}, so {source.without} left out; to have it, install"
            f" Go {oldest} or later (found: {seen}) and run again"
        )
    attempt = f"building {source.name} {source.version} with {seen}"
    failure = _try(attempt, partial(_compile, source, go, seen))
    return failure and f"no {source.name}, {attempt} failed: {failure}"


def _go(oldest: tuple[int, int]) -> tuple[str | None, str]:
    named = os.environ.get("KOPIATOMIC_GO")
    places = [named] if named else ["go", "/usr/local/go/bin/go", "/usr/local/bin/go"]
    if not named:
        places += map(str, sorted(Path("/usr/lib").glob("go-*/bin/go"), reverse=True))
    seen = "none"
    for place in places:
        go = shutil.which(place)
        if not go:
            continue
        answer = subprocess.run([go, "version"], capture_output=True, text=True, env=_env())
        match = re.search(r"\bgo(\d+)\.(\d+)\S*", answer.stdout)
        if match:
            seen = match[0]
            if (int(match[1]), int(match[2])) >= oldest:
                return go, seen
    return None, seen


def _env() -> dict[str, str]:
    # `go install module@version` asks the module proxy for all versions, which some proxies
    # do not tell; `go mod download` of the one and a build in its directory need no such list.
    ours = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    return {"HOME": str(Path.home())} | os.environ | ours


def _compile(source: Source, go: str, seen: str) -> str | None:
    say(
        f"building {source.name} {source.version} with {seen} into {source.built.parent},"
        " once (all three take some 6 minutes on 2 cores)"
    )
    source.built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        download = [go, "mod", "download", "-json", f"{source.module}@v{source.version}"]
        answer = subprocess.run(download, cwd=scratch, env=_env(), capture_output=True, text=True)
        if answer.returncode:
            return _last_line(answer.stderr + "\n" + answer.stdout.strip(" \n{}"))
        binary = Path(scratch, source.name)
        where, progress = json.loads(answer.stdout)["Dir"], Progress(source.name)
        tags = [option for option in source.options if option.startswith("-tags=")]
        needed = [go, "list", "-deps", *tags, source.target]
        build = [go, "build", "-v", "-trimpath", *source.options, "-o", str(binary), source.target]
        complaint = _run(needed, where, _env(), progress.listed)
        complaint = complaint or _run(build, where, _env(), progress.compiled)
        if complaint is None:
            binary.replace(source.built)
        return complaint


class Progress:
    """Tells every few seconds how far a build is, from what go says line by line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.modules = self.packages = self.done = 0
        self.told = time.monotonic()

    def listed(self, line: str) -> None:
        """Count a line of `go list -deps`: a module that is fetched, or a package."""
        if line.startswith("go: "):
            self.modules += 1
            self._tell(f"{self.modules} modules fetched")
        else:
            self.packages += 1

    def compiled(self, line: str) -> None:
        """Count a line of `go build -v`: a package."""
        self.done += not line.startswith("go: ")
        self._tell(f"{self.done} of {max(self.done, self.packages)} packages compiled")

    def _tell(self, what: str) -> None:
        if time.monotonic() - self.told >= INTERVAL:
            self.told = time.monotonic()
            say(f"building {self.name}: {what}")


def write_clients(found: list[tuple[str, clients.Client]]) -> None:
    """Leave for tests and demo which clients there are; say so when it is news."""
    before = _read(clients.FOUND)
    news: dict[str, object] = before | {
        "reasons": (before.get("reasons") or {}) | {name: client.reason for name, client in found}
    }
    for name, client in found:
        news[name] = client.path and {"path": str(client.path), "version": client.version}
        if client.reason:
            say(client.reason)
    if news != before:
        for name, client in found:
            if client.path:
                say(f"{name} {client.version} is {client.path}")
        _write(clients.FOUND, news)


# Small things


def say(line: str) -> None:
    """Print a line."""
    print(f"prepare: {line}", flush=True)


def _try(what: str, attempt: Callable[[], str | None]) -> str | None:
    """The attempt's complaint, None if it went well; a failed one is not made again."""
    failed = _read(FAILED)
    if what not in failed:
        complaint = attempt()
        if complaint is None:
            return None
        say(f"{what}: {complaint}")
        failed[what] = complaint
        _write(FAILED, failed)
    return str(failed[what])


def _run(
    argv: list[str],
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> str | None:
    """None when it went well, else the last line it wrote; each line is shown to `watch`."""
    env = (env or dict(os.environ)) | {"DEBIAN_FRONTEND": "noninteractive"}
    last = ""
    try:
        with subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout:
                watch(line.strip())
                last = line.strip() or last
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    return last or f"status {process.returncode}" if process.returncode else None


def _must(argv: list[str]) -> None:
    complaint = _run(argv)
    if complaint:
        sys.exit(f"prepare: {' '.join(argv)}: {complaint}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    draft.replace(path)


if __name__ == "__main__":
    main()
