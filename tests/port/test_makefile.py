"""The port's Makefile and what is beside it, as a committer reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from port.build import CHECKOUT, Port, needed

pytestmark = needed()

# The order of the Porter's Handbook, as far as these variables are in it.
ORDER = """
PORTNAME DISTVERSION CATEGORIES MAINTAINER COMMENT WWW LICENSE LICENSE_FILE BUILD_DEPENDS
TEST_DEPENDS USES USE_GITHUB USE_RC_SUBR SHEBANG_FILES NO_ARCH SUB_FILES OPTIONS_DEFINE
OPTIONS_DEFAULT OPTIONS_GROUP OPTIONS_GROUP_CLIENT OPTIONS_SUB CLIENT_DESC KOPIA_DESC RESTIC_DESC
KOPIA_RUN_DEPENDS RESTIC_RUN_DEPENDS
""".split()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Port:
    return Port(tmp_path_factory.mktemp("makefile"))


def makefile() -> str:
    return (CHECKOUT / "Makefile").read_text()


def test_variables_come_in_the_order_of_the_handbook():
    names = re.findall(r"^([A-Z][A-Z_]*)\??=", makefile(), re.M)
    assert names == ORDER


def test_lines_are_laid_out_as_portlint_wants_them():
    for line in makefile().splitlines():
        assert line == line.rstrip(), line
        assert not line.startswith(" "), line
        assert len(line.expandtabs()) <= 100, line
        assert not re.match(r"[A-Z_]+\??= ", line), f"a tab after {line}"
    assert "\n\n\n" not in makefile()
    assert makefile().endswith("\n\n.include <bsd.port.mk>\n")


def test_the_comment(port: Port):
    comment = port.value("COMMENT")
    assert len(comment) <= 70
    assert comment[0].isupper()
    assert comment[-1] != "."
    assert comment.split()[0] not in ("A", "An", "The")
    assert not comment.startswith(port.value("PORTNAME"))


def test_the_version_is_that_of_the_module_and_the_latest_change(port: Port):
    version = port.value("DISTVERSION")
    module = (CHECKOUT / "src/kopiatomic/__init__.py").read_text()
    changes = (CHECKOUT / "CHANGELOG.md").read_text()
    assert f'__version__ = "{version}"\n' in module
    assert re.findall(r"^## (.*)$", changes, re.M)[0].split()[0] == version


def test_what_it_depends_on(port: Port):
    build, run, test = (port.value(f"{each}_DEPENDS").split() for each in ("BUILD", "RUN", "TEST"))
    for each in build + run + test:
        assert re.fullmatch(r"[\w.+-]+(>=?[\d.]+)?:[a-z]+/[\w-]+(@\w+)?", each), each
    assert [each.split(":")[1].split("@")[0] for each in build] == ["devel/py-Jinja2"]
    assert run == []
    # In the order of portfmt, which goes by the text.
    assert [each.split(":")[1].split("@")[0] for each in test] == [
        "devel/py-hypothesis", "devel/py-pytest-subprocess", "devel/py-pytest",
        "sysutils/kopia", "sysutils/restic",
    ]  # fmt: skip
    written = re.search(r"^TEST_DEPENDS=((?:.*\\\n)*.*)$", makefile(), re.M)[1]
    words = written.replace("\\\n", " ").split()
    assert words == sorted(words)


@pytest.mark.parametrize("client", ["kopia", "restic"])
def test_a_client_is_installed_for_those_who_ask_for_it(port: Port, client: str):
    depends = port.make("-V", "RUN_DEPENDS", f"WITH={client.upper()}")
    assert depends.split() == [f"{client}:sysutils/{client}"]


def test_every_option_is_described_and_what_is_no_other_program_is_on(port: Port):
    clients = port.value("OPTIONS_GROUP_CLIENT").split()
    others = port.value("OPTIONS_DEFINE").split()
    assert clients == ["KOPIA", "RESTIC"]
    assert others == port.value("OPTIONS_DEFAULT").split() == ["BASH", "EXAMPLES", "FISH", "ZSH"]
    for option in [*clients, *others, "CLIENT"]:
        assert 0 < len(port.value(f"{option}_DESC")) < 60


def test_a_checkout_fetches_nothing(port: Port):
    assert port.value("DISTFILES") == ""
    assert port.value("MASTER_SITES") == ""


def test_in_the_ports_tree_a_tag_is_fetched(tmp_path: Path):
    port = Port(tmp_path)
    (tmp_path / "Makefile.local").unlink()
    version = port.value("DISTVERSION")
    # The tag is the version as it is.
    assert port.value("GH_TAGNAME") == version
    assert port.value("DISTFILES") == f"kopiatomic-kopiatomic-{version}_GH0.tar.gz"
    assert port.value("WRKSRC") == f"{tmp_path}/work/kopiatomic-{version}"


def test_the_tags_of_releases_are_versions_as_they_are():
    changes = (CHECKOUT / "CHANGELOG.md").read_text()
    for version in re.findall(r"^## (\S+)", changes, re.M):
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    if (CHECKOUT / ".git").exists():
        git = ["git", "-C", str(CHECKOUT), "tag", "--list"]
        tags = subprocess.run(git, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        assert not [each for each in tags if not re.fullmatch(r"\d+\.\d+\.\d+", each)]


@pytest.mark.parametrize("name", ["MAINTAINER", "WWW"])
def test_what_to_put_in_before_submitting_is_said_where_it_goes(name: str):
    comment = re.search(rf"((?:^#.*\n)+){name}=\t+\S+\n", makefile(), re.M)
    assert comment
    assert "To submit the port, put" in comment[1]


def test_the_page_and_the_maintainer_are_in_one_place(port: Port):
    for name in ("MAINTAINER", "WWW"):
        value = port.value(name)
        holders = [each for each in port.names if value in (port.directory / each).read_text()]
        assert holders == ["Makefile"], name
    account, project = port.value("WWW").removeprefix("https://github.com/").split("/")
    (port.directory / "Makefile.local").rename(port.directory / "kept")
    fetched = port.value("MASTER_SITES")
    (port.directory / "kept").rename(port.directory / "Makefile.local")
    assert f"/{account}/{project}/" in fetched


def test_what_is_submitted_is_the_port_and_nothing_of_a_checkout(tmp_path: Path):
    port = Port(tmp_path / "port")
    said = port.make("submission", f"SUBMISSION={tmp_path}/kopiatomic")
    assert said.strip() == f"{tmp_path}/kopiatomic"
    there = sorted(str(path.relative_to(tmp_path / "kopiatomic"))
                   for path in (tmp_path / "kopiatomic").rglob("*") if path.is_file())  # fmt: skip
    assert there == ["Makefile", "files/kopiatomic_sweep.in", "files/pkg-message.in", "pkg-descr",
                     "pkg-plist"]  # fmt: skip


def test_gnu_make_does_not_read_it():
    gnu = shutil.which("gmake") or shutil.which("make")
    said = subprocess.run(
        [gnu, "--debug=v", "-n", "help"], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE,
        text=True,
    ).stdout  # fmt: skip
    assert re.findall(r"Reading makefile '(\w+)'", said) == ["GNUmakefile"]


def test_demo_does_what_gnu_make_does(port: Port):
    assert "PYTHONPATH=src:tests" in port.make("-n", "demo")
    assert "tests/demo.py" in port.make("-n", "demo")


def test_the_description():
    text = (CHECKOUT / "pkg-descr").read_text()
    lines = text.splitlines()
    assert text.isascii()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "WWW:" not in text
    assert "http" not in text


def test_the_packing_list_is_in_order():
    lines = (CHECKOUT / "pkg-plist").read_text().splitlines()
    assert len(set(lines)) == len(lines)
    assert all(line == line.strip() and line for line in lines)
    modules = [line for line in lines if line.startswith("libexec/")]
    assert modules
    assert modules == sorted(modules)
    # What has a default of its own would become live with its "change-me".
    assert not [line for line in lines if "@sample" in line]
    samples = [line for line in lines if line.endswith(".sample")]
    assert len(samples) == 4
    assert all(re.match(r"@\(root,wheel,0[67]00\) %%ETCDIR%%/", line) for line in samples)
    # portlint: what has a variable is named by it.
    assert not [line for line in lines if re.search(r"python3\.?\d|etc/kopiatomic", line)]


FETCHED = "https://git.FreeBSD.org/ports.git"
GIT = """#!/bin/sh
if [ "$1" = ls-remote ]; then
    for each in 2026Q3 2025Q4 2026Q4; do printf '%s\\trefs/heads/%s\\n' 0123abcd $each; done
else
    echo "$@" >> git.log
fi
"""


@pytest.mark.parametrize(("repository", "branch"), [("quarterly", "2026Q4"), ("latest", "main")])
def test_on_freebsd_the_ports_tree_is_the_one_of_the_packages(
    tmp_path: Path, repository: str, branch: str
):
    """Packages of another branch may be older than what the port depends on there."""
    script = CHECKOUT / ".github/workflows/freebsd.sh"
    if not script.exists():
        pytest.skip("needs a checkout: this is no part of the port")
    begin, _, _ = script.read_text().partition("\n# A checkout, which is a port")
    address = f"pkg+https://pkg.FreeBSD.org/FreeBSD:14:amd64/{repository}"
    pkg = f"#!/bin/sh\necho '    url             : \"{address}\",'\n"
    for name, text in (("git", GIT), ("pkg", pkg), ("kldstat", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", begin], check=True, cwd=tmp_path, env={"PATH": path})
    words = (tmp_path / "git.log").read_text().split()
    assert words[0] == "clone"
    assert words[words.index("--branch") + 1] == branch
    assert words[-2:] == [FETCHED, "/usr/ports"]
    # What the port needs comes from there, and from nowhere else.
    rest = script.read_text()
    assert rest.count("pkg install") == 1
    assert "pkg install -y $names" in rest


def test_on_freebsd_what_portlint_calls_fatal_fails_and_suggestions_do_not():
    script = CHECKOUT / ".github/workflows/freebsd.sh"
    if not script.exists():
        pytest.skip("needs a checkout: this is no part of the port")
    subprocess.run(["/bin/sh", "-n", script], check=True)
    lines = script.read_text().splitlines()
    assert "set -ex" in lines
    # In this order: what a committer gets, its distinfo, and the two linters.
    order = ['make submission SUBMISSION="$port"', "make makesum", "portclippy Makefile || true",
             "portlint -AC", "make DEVELOPER=yes check-plist stage-qa"]  # fmt: skip
    assert [line for line in lines if line in order] == order
    # What is installed is what users build: neither for developers nor with times of its own.
    unset, added = lines.index("unset SOURCE_DATE_EPOCH"), lines.index('pkg add "$package"')
    assert "make clean package" in lines[unset:added]
    assert not [line for line in lines if "export" in line and "DEVELOPER" in line]
