"""Write what is made of templates: `python3 periodic/render.py --destdir DIR --prefix PREFIX`.

Those are the scripts for periodic(8), the manual pages and the completions for fish: each for
both programs. Needs jinja2, at build time only. There is one template for each kind; the names
of periodic.conf variables follow from kind, program and period.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

CHECKOUT = Path(__file__).resolve().parents[1]
TEMPLATES = (CHECKOUT / "periodic/templates", CHECKOUT / "files")
CLIENTS = {"kopiatomic": "kopia", "restomic": "restic"}
PERIODS = ("daily", "weekly", "monthly")
# Where base looks for what is not base; PREFIX may be another place.
LOCALBASE = "/usr/local"
WIDTH = 80
TAB = 8


@dataclass(frozen=True)
class Output:
    """One file: where it goes below the prefix, its mode, its template and what fills that in.

    A script has a period, which is its directory, and a name, with which its variables in
    periodic.conf begin.
    """

    path: str
    mode: int
    template: str
    kind: str
    program: str
    period: str = ""
    name: str = ""


def outputs() -> Iterator[Output]:
    """Return all that there is to write."""
    yield from scripts()
    for program in CLIENTS:
        page = f"share/man/man8/{program}.8"
        yield Output(page, 0o444, "manual.8.j2", "manual", program)
        completion = f"share/fish/vendor_completions.d/{program}.fish"
        yield Output(completion, 0o444, "completions/program.fish.j2", "fish", program)


def scripts() -> Iterator[Output]:
    """Return all scripts. Why they have these numbers is said in the templates."""
    for program in CLIENTS:
        for period in PERIODS:
            yield _script(period, f"800.{program}", "backup", program, f"{period}_{program}")
            yield _named(period, 850, "upkeep", program)
        for period in ("weekly", "monthly"):
            yield _named(period, 860, "drill", program)
        yield _named("daily", 900, "status", program)
    yield _script(
        "security", "800.kopiatomic", "security", "kopiatomic", "security_status_kopiatomic"
    )


def _named(period: str, number: int, kind: str, program: str) -> Output:
    """Return a script that is named as base's 800.scrub-zfs with its daily_scrub_zfs_enable."""
    file, name = f"{number}.{kind}-{program}", f"{period}_{kind}_{program}"
    return _script(period, file, kind, program, name)


def _script(period: str, file: str, kind: str, program: str, name: str) -> Output:
    path = f"etc/periodic/{period}/{file}"
    return Output(path, 0o555, f"{kind}.j2", kind, program, period, name)


def environment() -> jinja2.Environment:
    """Return jinja2, set up for scripts and manual pages: {{ and {% mean something there."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        block_start_string="[%", block_end_string="%]",
        variable_start_string="[[", variable_end_string="]]",
        comment_start_string="[#", comment_end_string="#]",
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        autoescape=False,
    )  # fmt: skip
    made.filters["align"] = align
    made.filters["fold"] = fold
    made.globals["known_of"] = known_of
    return made


def align(text: str) -> str:
    """Put the comments of several lines, each after a tab, into one column."""
    rows = [line.split("\t", 1) for line in text.splitlines() if line]
    column = max(len(code) for code, _ in rows) // TAB + 1
    gaps = ["\t" * (column - len(code) // TAB) for code, _ in rows]
    return "".join(
        f"{code}{gap}{comment}\n" for (code, comment), gap in zip(rows, gaps, strict=True)
    )


def known_of(values: str, switches: str) -> str:
    """Return the names of a script's variables: those with a value, then those of YES or NO."""
    names = [each.partition(":")[0] for each in values.split()]
    return " ".join(["enable", "profiles", *names, *switches.split()])


def fold(words: str, tabs: int = 1) -> str:
    """Break the words of `for each in WORDS; do`, indented by so many tabs, into lines."""
    lines, start = [""], tabs * TAB + len("for each in ")
    for word in words.split():
        if lines[-1] and start + len(f"{lines[-1]} {word}; do") > WIDTH:
            lines.append("")
            start = tabs * TAB + 4
        lines[-1] += f" {word}" if lines[-1] else word
    indent = "\t" * tabs
    return f" \\\n{indent}    ".join(lines)


def render(
    output: Output, prefix: str, jinja: jinja2.Environment, localbase: str = LOCALBASE
) -> str:
    """Return the text of a file."""
    client = CLIENTS[output.program]
    return jinja.get_template(output.template).render(
        asdict(output), client=client, prefix=prefix, localbase=localbase
    )


def write(destdir: str, prefix: str, localbase: str = LOCALBASE) -> None:
    """Write all files below DESTDIR/PREFIX."""
    jinja = environment()
    for output in outputs():
        path = Path(f"{destdir}{prefix}/{output.path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(render(output, prefix, jinja, localbase))
        os.chmod(path, output.mode)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write scripts, manual pages and completions.")
    parser.add_argument("--destdir", default="", help="where the prefix is to be found")
    parser.add_argument("--prefix", default=LOCALBASE, help="/usr/local, or another")
    parser.add_argument("--localbase", default=LOCALBASE, help="where other ports are installed")
    given = parser.parse_args()
    write(given.destdir, given.prefix.rstrip("/"), given.localbase.rstrip("/"))


if __name__ == "__main__":
    main()
