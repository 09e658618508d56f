"""The manual pages: complete, true to the program, and with examples that work when pasted.

What the pages say is compared with what the code has; the examples of the pages, of README
and of docs/ are run in the sandbox, where a stub stands in for the client.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from support.machine import CHECKOUT, PROGRAMS, Sandbox, shell
from support.rendering import rendered, renderer

from kopiatomic import errors, state
from kopiatomic.backup.names import Names
from kopiatomic.cli import LONG, SHORT
from kopiatomic.clients import client_of, programs
from kopiatomic.clients.records import Wishes
from kopiatomic.commands import notify
from kopiatomic.job import Job
from kopiatomic.monitoring import check, metrics
from kopiatomic.repository import drill, scratch
from kopiatomic.state import Place
from kopiatomic.system import command, process
from kopiatomic.system.machine import lies_in

SOURCES = CHECKOUT / "src/kopiatomic"
PAGES = rendered("manual")
SCRIPT = CHECKOUT / "periodic/templates/routine.j2"
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
CLIENTS = {"kopiatomic": "kopia", "restomic": "restic"}

both = pytest.mark.parametrize("program", PROGRAMS)


def code(*but: str) -> str:
    """Return the code of the program, without that of some modules."""
    modules = sorted(SOURCES.rglob("*.py"))
    assert {f"{name}.py" for name in (*but, "__init__", "cli")} <= {each.name for each in modules}
    return "".join(each.read_text() for each in modules if each.stem not in but)


def section(page: str, title: str) -> str:
    """Return a section or subsection of a page, with what is below it."""
    found = re.search(rf"^\.(S[hs]) {re.escape(title)}$", page, re.M)
    assert found, title
    ends = r"^\.Sh " if found[1] == "Sh" else r"^\.S[hs] "
    rest = page[found.end() :]
    end = re.search(ends, rest, re.M)
    return rest[: end.start()] if end else rest


def items(text: str, macro: str) -> list[str]:
    """Return what the list items marked up with a macro are about, each on its own."""
    lines = re.findall(rf"^\.It {macro} (.*)$", text, re.M)
    return [part.removeprefix(f"{macro} ") for line in lines for part in line.split(" , ")]


def plain(text: str) -> str:
    """Return the text of a page in one line, without requests for macros and fonts."""
    text = re.sub(r"^\.(Fl|Va|Ev|Pa|Li|Ql|Dq|Pq|Ar|Xr|Nm|Em)\b ?", "", text, flags=re.M)
    return " ".join(text.split())


def switches(page: str) -> dict[str, bool]:
    """Return the options that a page describes, and whether they take a word."""
    return {f"-{item.split()[0]}": " Ar " in item for item in items(page, "Fl")}


def lacks(program: str, **wish: object) -> bool:
    """Say whether a program refuses a step of upkeep as the other client's."""
    job = Job(program=program, name="default", targets=())
    try:
        client_of(program).steps(job, Wishes(**wish), {})  # type: ignore[arg-type]
    except errors.Refusal as error:
        return re.search("(is|are) (kopia|restic)'s", str(error)) is not None
    return False


def known_switches(program: str) -> dict[str, bool]:
    """Return the options that a program has, and whether they take a word."""
    known = {f"-{letter}": mark == ":" for letter, mark in re.findall(r"(\w)(:?)", SHORT)}
    known |= {f"--{name.rstrip('=')}": name.endswith("=") for name in LONG}
    wishes = {"--maintenance": True, "--forget": ("--keep-last", "1"), "--prune": True}
    for option, value in wishes.items():
        if lacks(program, **{option.removeprefix("--"): value}):
            del known[option]
    return known


def variables(text: str) -> dict[str, str]:
    """Return the periodic.conf variables that a part of a page lists, with their defaults."""
    found, waiting = {}, []
    for line in text.splitlines():
        item = re.fullmatch(r"\.It Va (\w+)", line)
        told = re.fullmatch(r"\.Pq Vt (?:bool|list|num|path|str|time) , No default (.+)", line)
        if item:
            waiting.append(item[1])
        elif told:
            assert waiting, line
            for name in waiting:
                found[name] = told[1]
            waiting = []
    assert not waiting, f"no default is told of {waiting}"
    return found


def as_told(value: str) -> str:
    """Return a default as a page tells it."""
    other = re.fullmatch(r"\$\{(\w+)-\}", value)
    if other:
        return f"that of Va {other[1]}"
    return f"Li {value}" if value else "empty"


# The options


@both
def test_every_switch_is_described_and_no_other(program):
    assert switches(PAGES[program]) == known_switches(program)


@both
def test_short_and_long_form_are_described_together(program):
    for name, short in LONG.items():
        if not short.startswith("--"):
            long = name.rstrip("=")
            word = r" Ar \S+" if name.endswith("=") else ""
            line = rf"^\.It Fl {short[1]}{word} , (Fl )?-{long}{word}$"
            assert re.search(line, PAGES[program], re.M), name


@both
def test_only_known_switches_are_named_in_the_text(program):
    known = known_switches(program)
    for line in PAGES[program].splitlines():
        for word in re.findall(r"\bFl (-[a-z-]+)", line):
            assert f"-{word}" in known, line


@both
def test_the_synopsis_has_only_what_is_described(program):
    synopsis = section(PAGES[program], "SYNOPSIS")
    for word in re.findall(r"Fl ([a-z]+)", synopsis):
        assert {f"-{letter}" for letter in word} <= set(known_switches(program))


def test_both_pages_have_the_same_sections():
    kopiatomic, restomic = (re.findall(r"^\.S[hs] .*", PAGES[each], re.M) for each in PROGRAMS)
    assert kopiatomic == restomic


# The variables of periodic.conf


@pytest.fixture(scope="module")
def scripts() -> dict:
    """The defaults in each script for periodic(8), by kind, program and period."""
    render = renderer()
    jinja = render.environment()
    return {
        (each.kind, each.program, each.period): dict(
            re.findall(
                r'^: "\$\{([a-z]\w*)=(.*)\}"', render.render(each, "/usr/local", jinja), re.M
            )
        )
        for each in render.scripts()
    }


@both
def test_every_periodic_variable_is_described_and_no_other(program, scripts):
    told = variables(section(PAGES[program], "PERIODIC VARIABLES"))
    expected = {}
    seen = set()
    for (kind, owner, _), defaults in scripts.items():
        # The other periods of a kind are told of in a sentence; the security script serves both.
        if (kind, owner) not in seen and (owner == program or kind == "security"):
            expected |= {name: as_told(value) for name, value in defaults.items()}
            seen.add((kind, owner))
    assert told == expected


TITLES = {"backup": "Backups", "upkeep": "Upkeep", "drill": "Restore drills"}


@both
@pytest.mark.parametrize("kind", TITLES)
def test_what_is_said_of_the_other_periods_holds(program, kind, scripts):
    own = {period: names for (k, p, period), names in scripts.items() if (k, p) == (kind, program)}
    first, *others = own
    intro = section(PAGES[program], TITLES[kind]).split(".Bl", 1)[0]
    told = re.findall(r"^\.Va (\w+)_ ?\.?$", intro, re.M)
    assert told == [*others, first]
    for period in others:
        renamed = {re.sub(rf"^{first}_", f"{period}_", n): value for n, value in own[first].items()}
        assert own[period] == renamed


def test_a_kind_of_script_with_one_period_is_not_described_as_one_with_more(scripts):
    single = {kind for kind, _, _ in scripts} - set(TITLES)
    assert single == {"status", "security"}
    for kind in single:
        assert len({period for k, _, period in scripts if k == kind}) == 1


# What else can be compared


@both
def test_every_exit_status_that_can_occur_is_listed(program):
    others = code("errors")
    used = {
        name: value
        for name, value in vars(errors).items()
        if name.startswith("EX_") and value and re.search(rf"\b{name}\b", others)
    }
    # Refusal's own, where nothing else is said.
    used["EX_USAGE"] = errors.EX_USAGE
    text = section(PAGES[program], "EXIT STATUS")
    listed = re.findall(r"^\.It (\d+) Pq Dv (EX_\w+)$", text, re.M)
    assert {name: int(value) for value, name in listed} == used
    besides = re.findall(r"^\.It (\d+)(?: \+ Ar n)?$", text, re.M)
    assert besides == [str(drill.EX_DIFFERENT), "128"]


def test_the_page_on_operating_has_the_same_exit_statuses():
    text = (CHECKOUT / "docs/operating.md").read_text()
    told = text.split("## Exit status", 1)[1].split("##", 1)[0]
    others = code("errors")
    for name, value in vars(errors).items():
        if name.startswith("EX_") and re.search(rf"\b{name}\b", others) and name != "EX_SOFTWARE":
            assert re.search(rf"\b{value}\b", told), name


@both
def test_the_files_are_those_of_the_program(program, monkeypatch):
    # On Linux /var/run is a symbolic link; what is documented is FreeBSD's name.
    monkeypatch.setattr(state.os.path, "realpath", lambda path: path)
    place = Place(program, "job")
    names = Names("", "", place.directory)
    listed = [
        re.sub(r"(?:\\&)? Ns (?:Ar |Pa )?", "", item)
        for item in items(section(PAGES[program], "FILES"), "Pa")
    ]
    assert sorted(listed) == sorted(
        [
            state.search_mark(), state.holds_mark(place), f"{place.root}/", names.view,
            names.holds, names.gaps, names.temporary, place.lock,
            f"{state.STATE_DIRECTORY}/", place.history, place.upkeep, place.unfinished,
            place.holds,
            f"{state.STATE_DIRECTORY}/{scratch.prefix(place)}*",
            "/usr/local/etc/periodic/", "/usr/local/etc/kopiatomic/",
            "/usr/local/share/examples/kopiatomic/",
            "/usr/local/etc/rc.d/kopiatomic_sweep",
        ]
    )  # fmt: skip
    assert any(lies_in(names.view, f"{state.RUN_ROOT}/{each}") for each in programs())


@both
def test_the_environment_is_that_of_the_program(program):
    text = section(PAGES[program], "ENVIRONMENT")
    given = set(re.findall(r'"(KOPIATOMIC_\w+)"', code()))
    assert given
    assert {each for each in items(text, "Ev") if each.startswith("KOPIATOMIC_")} == given
    assert f".Pa {command.PATH} .\n" in text
    dropped = {
        **{name: name for name in (
            "PATH", "IFS", "ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "ZDOTDIR", "FPATH",
            "CDPATH", "PS4",
        )},
        "LD_PRELOAD": "LD_*", "PYTHONPATH": "PYTHON*", "PERL5LIB": "PERL*", "RUBYOPT": "RUBY*",
        "BASH_FUNC_restic%%": "BASH_FUNC_*",
    }  # fmt: skip
    kept = {"HOME", "LANG", "RESTIC_PASSWORD", "KOPIA_PASSWORD", "TMPDIR"}
    job = Job(program=program, name="default", targets=())
    inherited = dict.fromkeys((*kept, *dropped), "/x")
    environment = client_of(program).environment(job, inherited)
    assert {name for name, value in environment.items() if value == "/x"} == kept
    listed = " , ".join(re.findall(r"^\.(?:Pq )?Ev (.*?)(?: [.,])?$", text, re.M)).split(" , ")
    assert set(dropped.values()) <= set(listed)


@both
def test_the_numbers_are_those_of_the_program(program):
    page = plain(PAGES[program])
    assert f"which has {process.GRACE:g} seconds to end" in page
    assert f"The last {state.HISTORY_LENGTH} backups" in page
    assert f"After {notify.LIMIT:g} seconds the command gets" in page
    assert f"and {process.GRACE:g} seconds later" in page
    assert f"timeout -k {process.GRACE:g} {notify.LIMIT:g} " in SCRIPT.read_text()
    assert f"{check.MAX_AGE:g} hours if not given" in page
    assert drill.size_of("1G") == drill.SIZE_LIMIT
    assert "The default is 1G" in page


@both
def test_every_metric_is_described_and_no_other(program):
    told = items(section(PAGES[program], "Monitoring"), "Li")
    names = ["build_info", *(each.name for each in (*metrics.METRICS, *metrics.RUN_METRICS))]
    assert sorted(told) == sorted(f"{metrics.PREFIX}_{name}" for name in names)


@both
def test_mandoc_has_nothing_to_say(program):
    if shutil.which("mandoc") is None:
        pytest.skip("no mandoc on this machine")
    result = subprocess.run(
        ["mandoc", "-Tlint", "-Wall"], input=PAGES[program], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    # Which other pages there are is this machine's matter.
    others = ("referenced manual not found", "outdated mandoc.db")
    said = (result.stdout + result.stderr).splitlines()
    assert [line for line in said if not any(each in line for each in others)] == []


# Of FreeBSD 14.2's base; zfs(8) and its like come with it.
PAGES_OF_BASE = set(
    """bhyve.8 cat.1 chflags.1 getfacl.1 ps.1 sh.1 ssh.1 tar.1 chroot.2 nmount.2 rmdir.2 sysexits.3
    geom.4 devfs.rules.5 periodic.conf.5 rc.conf.5 bectl.8 bsdinstall.8 cron.8 mdconfig.8
    mount_nullfs.8 periodic.8 zfs.8 zfs-destroy.8 zfs-hold.8 zfs-jail.8 zfs-program.8
    zfs-snapshot.8""".split()
)


@both
def test_it_refers_to_pages_that_are_there(program):
    # nullfs is in section 5 up to FreeBSD 14 and in section 4 from 15 on: mount_nullfs(8) is there.
    others = {"kopiatomic.8", "restomic.8", "restic.1", "kopia.1"} - {f"{program}.8"}
    named = re.findall(r"^\.(?:Pq )?Xr (\S+) (\d)", PAGES[program], re.M)
    assert {f"{name}.{section}" for name, section in named} - others <= PAGES_OF_BASE


@both
def test_lines_are_short_and_sentences_begin_new_ones(program):
    literal = False
    for number, line in enumerate(PAGES[program].splitlines(), 1):
        literal = (literal or line.startswith(".Bd")) and not line.startswith(".Ed")
        if not literal and not line.startswith("."):
            assert len(line) <= 80, number
            assert not re.search(r"\. +[A-Z]", line), number


# The examples


def blocks(page: str) -> list[str]:
    """Return the literal text of a page's examples as a reader sees it."""
    text = section(page, "EXAMPLES")
    found = re.findall(r"^\.Dl (.*)$|^\.Bd -literal -offset indent\n((?:.*\n)*?)\.Ed$", text, re.M)
    return [
        (line or block.rstrip("\n")).replace(r"\e", "\\").replace(r"\(dq", '"')
        for line, block in found
    ]


def commands_in(text: str) -> list[str]:
    """Return the commands in a text that run either program, with the lines that continue them."""
    return re.findall(rf"^((?:{'|'.join(PROGRAMS)}) (?:[^\n]*\\\n)*[^\n]*)$", text, re.M)


def documented_commands() -> list[str]:
    """Return the commands in README.md and docs/: of indented blocks, and those in the text."""
    text = "\n".join(each.read_text() for each in DOCUMENTS)
    indented = "\n".join(re.findall(r"^ {4}(.*)$", text, re.M))
    prose = re.sub(r"^ {4}.*$", "", text, flags=re.M)
    inline = re.findall(rf"`((?:{'|'.join(PROGRAMS)})\s[^`]+)`", prose)
    return [*commands_in(indented), *(" ".join(each.split()) for each in inline)]


MANUAL_COMMANDS = [
    each for program in PROGRAMS for block in blocks(PAGES[program]) for each in commands_in(block)
]
CONFIGURATIONS = [
    block for program in PROGRAMS for block in blocks(PAGES[program]) if "_enable=" in block
]

STUB = """#!/bin/sh
# As a client that has nothing to tell, and no backup in its repository.
echo '[]'
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A machine that has what the examples speak of."""
    made = Sandbox(tmp_path_factory.mktemp("manual") / "host")
    try:
        for pool in ("zroot", "tank"):
            made.make_pool(pool)
        shell(
            made,
            """
            zfs create -o mountpoint=/home zroot/home
            zfs create zroot/home/ben
            zfs create -o canmount=off -o mountpoint=/usr zroot/usr
            zfs create zroot/usr/src
            zfs create -o canmount=off -o mountpoint=/var zroot/var
            zfs create -o canmount=off zroot/var/db
            zfs create zroot/var/db/mysql
            zfs create zroot/scratch
            zfs create zroot/poudriere
            zfs create -o mountpoint=/backup tank/backup
            mkdir -p /usr/local/sbin /usr/local/etc/kopiatomic
            """,
        )
        local = made.path("/usr/local")
        stubs = ("kopia", "restic", "tar", "service", "mysql-freeze")
        wrappers = ("kopia-home", "restic-home", "kopia-offsite", "restic-offsite")
        for name in (*(f"bin/{each}" for each in stubs), *(f"sbin/{each}" for each in wrappers)):
            (local / name).unlink(missing_ok=True)
            (local / name).write_text(STUB)
            (local / name).chmod(0o700)
        for name in ("restic-home.env", "kopiatomic/restic-home.env"):
            (local / "etc" / name).write_text("RESTIC_REPOSITORY=/backup/restic\n")
            (local / "etc" / name).chmod(0o600)
        for name in ("here", "away", "home"):
            path = local / f"etc/kopiatomic/{name}.env"
            path.write_text(f"RESTIC_REPOSITORY=/r/{name}\nKOPIA_CONFIG_PATH=/root/{name}.config\n")
            path.chmod(0o600)
        made.install_periodic()
        yield made
    finally:
        made.close()


def run(host: Sandbox, text: str) -> tuple[int, str]:
    result = host.run(["/bin/sh", "-c", f"cd /usr/local/etc/kopiatomic; {text}"])
    return result.returncode, result.stdout + result.stderr


@pytest.mark.linux(reason="the examples speak of /home, /usr and /var")
@pytest.mark.parametrize("text", dict.fromkeys([*MANUAL_COMMANDS, *documented_commands()]))
def test_the_command_works(text, host):
    if " /etc " in text:
        pytest.skip("/ is no ZFS here; host/test_directories_of_root.py backs these up")
    if "--drill" in text:
        status, said = run(host, text)
        assert "there is no backup of this machine" in said
        assert status == errors.EX_NOINPUT
        return
    if re.search(r"--(status|check|sweep)\b", text):
        status, said = run(host, text)
        assert status == 0 or ("--check" in text and status == 1), said
        return
    status, said = run(host, re.sub(r"^(\S+)", r"\1 -n", text))
    assert status == 0, said
    assert "Would run:" in said
    if "-n" in text.split() or "--upkeep" in text:
        assert run(host, text)[0] == 0
        return
    # The stub makes no backup, which is noticed; the job itself works all the same.
    status, said = run(host, text)
    expected = {0} if "--plain" in text else {errors.EX_DATAERR, errors.EX_UNAVAILABLE}
    assert status in expected, said
    status, said = run(host, re.sub(r"^(\S+)", r"\1 --no-proof", text))
    assert status == 0, said
    assert "the backup succeeded" in said


def test_there_are_commands_to_try():
    for program in PROGRAMS:
        assert sum(each.startswith(f"{program} ") for each in MANUAL_COMMANDS) >= 8
        assert sum(each.startswith(f"{program} ") for each in documented_commands()) >= 3


@pytest.mark.linux(reason="the examples speak of /home, /usr and /var")
@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_the_lines_for_periodic_conf_work(text, host, scripts):
    known = set().union(*scripts.values())
    for name in re.findall(r"^(\w+)=", text, re.M):
        assert name in known or re.sub(r"_(home|offsite)_", "_", name) in known
    # The stub makes no backup to be found.
    proofs = "".join(f'daily_{program}_proof="NO"\n' for program in PROGRAMS)
    host.path("/etc/periodic.conf").write_text(f"{text}\n{proofs}")
    directory = host.path("/usr/local/etc/periodic")
    for script in sorted(directory.glob("*/[0-9]*")):
        result = host.run([f"/usr/local/etc/periodic/{script.relative_to(directory)}"])
        said = result.stdout + result.stderr
        if "drill" in script.name and said:
            # The stub has no backup to restore from.
            assert "there is no backup of this machine" in said
            assert result.returncode == 3
        elif script.parent.name == "security":
            assert "ended with status" not in said
            assert "neither YES nor NO" not in said
        else:
            assert result.returncode in (0, 1), said
        if script.parent.name == "daily" and script.name.startswith("800."):
            enabled = f"daily_{script.name.removeprefix('800.')}_enable" in text
            assert ("the backup succeeded" in said) == enabled


def test_the_lines_for_periodic_conf_in_the_readme_name_variables_that_exist(scripts):
    known = set().union(*scripts.values())
    text = (CHECKOUT / "README.md").read_text()
    named = re.findall(r"^ {4}((?:daily|weekly|monthly|security)_\w+)=", text, re.M)
    assert named
    assert set(named) <= known


def test_the_page_on_operating_has_every_variable_and_no_other(scripts):
    table = (CHECKOUT / "docs/operating.md").read_text().split("| variable |", 1)[1]
    table = table.split("\n\n", 1)[0]
    told = {
        name
        for row in re.findall(r"^\| (.*?) \|", table, re.M)
        for name in re.findall("`(.*?)`", row)
    }
    known = set().union(*scripts.values())
    assert [each for each in told if not any(name.endswith(f"_{each}") for name in known)] == []
    assert [name for name in known if not any(name.endswith(f"_{each}") for each in told)] == []


@both
def test_the_other_examples_are_valid_shell(program):
    for block in blocks(PAGES[program]):
        result = subprocess.run(
            ["/bin/sh", "-n"], input=block, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, block + result.stderr


@both
def test_restoring_needs_nothing_but_the_client(program):
    text = section(PAGES[program], "RESTORING")
    commands = re.findall(r"^\.Dl (.*)$", text, re.M)
    assert commands
    assert all(each.startswith(f"{CLIENTS[program]} ") for each in commands)


@both
def test_what_chkmounts_is_to_ignore_is_the_view_and_nothing_else(program):
    """security/200.chkmounts gives it to egrep -v, with lines of mount -p."""
    text = section(PAGES[program], "OTHER PROGRAMS")
    (pattern,) = re.findall(r'^security_status_chkmounts_ignore="(.*)"$', text, re.M)
    assert " " not in pattern  # it is split into words there
    ours = [
        f"zroot/home@x\t/var/run/{each}/default/hold/0\tzfs\tro\t0 0" for each in programs()
    ] + [
        f"/var/run/{each}/default/hold/0\t/var/run/{each}/default/view/home\tnullfs\tro\t0 0"
        for each in programs()
    ]
    others = ["zroot/home\t/home\tzfs\trw\t0 0", "zroot/x\t/var/run/restomic2\tzfs\trw\t0 0"]
    left = subprocess.run(
        ["grep", "-E", "-v", pattern], input="".join(f"{each}\n" for each in ours + others),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert left.stdout.splitlines() == others
