"""What is rendered: all of it, and the scripts for periodic(8) complete, strict, clean shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.rendering import CHECKOUT, RENDER, renderer

jinja2 = pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

render = renderer()
SCRIPTS = list(render.scripts())
PATHS = [script.path for script in SCRIPTS]
OTHERS = [
    f"share/{name}"
    for program in ("kopiatomic", "restomic")
    for name in (f"man/man8/{program}.8", f"fish/vendor_completions.d/{program}.fish")
]
EXAMPLE = CHECKOUT / "periodic/examples/800.restomic"


def rendered(script, prefix="/usr/local") -> str:
    return render.render(script, prefix, render.environment())


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("periodic")
    render.write(str(directory), "/usr/local")
    return directory


def written(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): (path.stat().st_mode & 0o7777, path.read_bytes())
        for path in files
    }


def test_the_scripts_are_these():
    assert sorted(PATHS) == sorted(
        [f"etc/periodic/{period}/{name}-{program}".replace("backup-", "")
         for program in ("kopiatomic", "restomic")
         for period, names in {
             "daily": ("800.backup", "850.upkeep", "900.status"),
             "weekly": ("800.backup", "850.upkeep", "860.drill"),
             "monthly": ("800.backup", "850.upkeep", "860.drill"),
         }.items()
         for name in names]
        + ["etc/periodic/security/800.kopiatomic"]
    )  # fmt: skip


def test_the_example_beside_the_templates_is_what_is_installed():
    script = next(each for each in SCRIPTS if each.path == "etc/periodic/daily/800.restomic")
    renew = "periodic/render.py --destdir DIR writes it anew"
    assert EXAMPLE.read_text() == rendered(script), renew


def test_the_command_line_writes_everything_with_its_mode_and_the_same_every_time(tmp_path):
    for name, seed in (("one", "1"), ("two", "2"), ("two", "3")):
        words = [sys.executable, RENDER, "--destdir", tmp_path / name, "--prefix", "/opt"]
        subprocess.run(words, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    assert {path: mode for path, (mode, _) in one.items()} == {
        **{f"opt/{path}": 0o555 for path in PATHS},
        **{f"opt/{path}": 0o444 for path in OTHERS},
    }
    assert one == two


def test_an_unknown_variable_is_an_error():
    jinja = render.environment()
    with pytest.raises(jinja2.UndefinedError):
        jinja.from_string("[[ nope ]]").render()
    with pytest.raises(jinja2.UndefinedError):
        jinja.from_string('[% include "conf.j2" %]').render()


def test_an_unknown_template_is_an_error():
    with pytest.raises(jinja2.TemplateNotFound):
        rendered(render.Output("1.nope", 0o555, "nope.j2", "nope", "restomic"))


@pytest.mark.parametrize("output", list(render.outputs()), ids=lambda each: each.path)
def test_nothing_of_the_template_is_left(output):
    assert not re.search(r"\[\[|\]\]|\[%|%\]|\[#|#\]|\bNone\b|Undefined", rendered(output))


@pytest.mark.parametrize("script", SCRIPTS, ids=PATHS)
class TestEach:
    def test_is_indented_by_tabs_and_ends_clean(self, script):
        text = rendered(script)
        assert text.startswith("#!/bin/sh\n#\n# ")
        assert text.endswith("\nexit $rc\n")
        assert "\n\n\n" not in text
        for line in text.splitlines():
            assert not line.startswith(" ")
            assert line == line.rstrip()

    def test_is_off_by_default(self, script):
        assert f': "${{{script.name}_enable=NO}}"' in rendered(script)

    def test_calls_the_program_where_the_prefix_is(self, script):
        text = rendered(script, "/opt")
        assert len(re.findall(r"^\t+/opt/sbin/\w+ ", text, re.M)) == 1
        # Where base looks for periodic.conf is another thing, and the only one.
        text = render.render(script, "/opt", render.environment(), "/elsewhere")
        assert "/usr/local" not in text
        assert re.findall(r"^.*/elsewhere.*$", text, re.M) == [
            "# /etc/defaults/periodic.conf does not find /elsewhere/etc/periodic.conf.",
            ': "${_localbase:=/elsewhere}"',
        ]

    def test_evaluates_nothing_but_variable_names(self, script):
        for line in rendered(script).splitlines():
            if "eval" in line:
                assert re.fullmatch(
                    r'\t+eval "(value=\\\$\{\$name\+set\}|value=\\\$\$name'
                    r'|enable=\\\$\$\{1\}_enable|own=\\\$\{\$\{1\}_profiles\+set\}'
                    r'|daily=\\\$daily_\$\{program\}_profiles)"'
                    r'|\t\[ -z "\$own" \] \|\| eval "profiles=\\\$\$\{1\}_profiles"', line
                )  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shell", ["sh", "dash", "busybox sh", "bash --posix"])
def test_every_shell_can_read_it(tree, shell, path):
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} on this machine")
    result = subprocess.run([*words, "-n", tree / "usr/local" / path], capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_shellcheck_has_nothing_to_say(tree):
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine")
    # SC1091: the files of the system that are read are not there.
    files = [tree / "usr/local" / path for path in PATHS]
    words = ["shellcheck", "-s", "sh", "-e", "SC1091", *files]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.stdout + result.stderr == ""


def test_fold_breaks_where_the_line_ends():
    assert render.fold("a b") == "a b"
    lines = f"for each in {render.fold('word ' * 30)}; do".split("\n")
    assert len(lines) == 3
    assert all(len(line.expandtabs(8)) <= 72 + 8 for line in lines)
    assert all(line.endswith(" \\") for line in lines[:-1])


def test_align_puts_comments_into_one_column():
    lines = render.align("a\t# x\n\nlonger code\t# y\n12345678\t# z\n").splitlines()
    assert [line.expandtabs(8).index("#") for line in lines] == [16, 16, 16]


def test_no_assignment_rests_on_another_one_of_its_line(tmp_path: Path):
    """FreeBSD's sh(1) expands all words of such a line before it assigns any; dash(1) does not."""
    one_line = re.compile(r"^[ \t]*(\w+)=\S*[ \t]+\w+=\S*\$\{?\1\b", re.M)
    assert one_line.search("\tjob=${each#*:} job=${job%:*}\n")
    renderer().write(str(tmp_path), "/usr/local")
    scripts = [path for path in tmp_path.rglob("*") if path.is_file() and "periodic" in str(path)]
    assert len(scripts) > 10
    assert not [path for path in scripts if one_line.search(path.read_text())]
