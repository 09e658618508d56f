"""The port's Makefile and what is beside it, as a committer reads them."""

from __future__ import annotations

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
    assert run == ["kopia:sysutils/kopia", "restic:sysutils/restic"]
    assert {each.split(":")[1].split("@")[0] for each in test} == {
        "devel/py-hypothesis", "devel/py-pytest", "devel/py-pytest-subprocess",
    }  # fmt: skip


@pytest.mark.parametrize("client", ["kopia", "restic"])
def test_each_client_can_be_done_without(port: Port, client: str):
    depends = port.make("-V", "RUN_DEPENDS", f"WITHOUT={client.upper()}")
    assert client not in depends
    assert len(depends.split()) == 1


def test_every_option_is_on_and_described(port: Port):
    options = port.value("OPTIONS_DEFINE").split() + port.value("OPTIONS_GROUP_CLIENT").split()
    assert sorted(options) == sorted(port.value("OPTIONS_DEFAULT").split())
    for option in [*options, "CLIENT"]:
        assert 0 < len(port.value(f"{option}_DESC")) < 60


def test_a_checkout_fetches_nothing(port: Port):
    assert port.value("DISTFILES") == ""
    assert port.value("MASTER_SITES") == ""


def test_in_the_ports_tree_a_tag_is_fetched(tmp_path: Path):
    port = Port(tmp_path)
    (tmp_path / "files/checkout.mk").unlink()
    version = port.value("DISTVERSION")
    assert port.value("DISTFILES") == f"kopiatomic-kopiatomic-{version}_GH0.tar.gz"
    assert port.value("WRKSRC") == f"{tmp_path}/work/kopiatomic-{version}"


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
    for bytecode in (False, True):
        modules = [line for line in lines
                   if "SITELIBDIR" in line and ("__pycache__" in line) == bytecode]  # fmt: skip
        assert modules
        assert modules == sorted(modules)
    # portlint: what has a variable is named by it.
    assert not [line for line in lines if re.search(r"python3\.?\d|etc/kopiatomic", line)]
