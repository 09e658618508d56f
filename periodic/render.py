"""Write the scripts for periodic(8): `python3 periodic/render.py --destdir DIR --prefix PREFIX`.

Needs jinja2, at build time only. There is one template for each kind of script; the names of
periodic.conf variables follow from kind, program and period.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).resolve().parent / "templates"
CLIENTS = {"kopiatomic": "kopia", "restomic": "restic"}
PERIODS = ("daily", "weekly", "monthly")
WIDTH = 80
TAB = 8


@dataclass(frozen=True)
class Script:
    """One script: where it goes, its template, and how its variables in periodic.conf begin."""

    directory: str
    file: str
    kind: str
    program: str
    name: str

    @property
    def path(self) -> str:
        """Where it goes, below the prefix."""
        return f"etc/periodic/{self.directory}/{self.file}"


def scripts() -> Iterator[Script]:
    """Return all scripts. Why they have these numbers is said in the templates."""
    for program in CLIENTS:
        for period in PERIODS:
            yield Script(period, f"800.{program}", "backup", program, f"{period}_{program}")
            yield _named(period, 850, "upkeep", program)
        for period in ("weekly", "monthly"):
            yield _named(period, 860, "drill", program)
        yield _named("daily", 900, "status", program)
    yield Script(
        "security", "800.kopiatomic", "security", "kopiatomic", "security_status_kopiatomic"
    )


def _named(period: str, number: int, kind: str, program: str) -> Script:
    """Return a script that is named as base's 800.scrub-zfs with its daily_scrub_zfs_enable."""
    return Script(period, f"{number}.{kind}-{program}", kind, program, f"{period}_{kind}_{program}")


def environment() -> jinja2.Environment:
    """Return jinja2, set up for shell scripts: {{ and {% mean something there."""
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
    return made


def align(text: str) -> str:
    """Put the comments of several lines, each after a tab, into one column."""
    rows = [line.split("\t", 1) for line in text.splitlines() if line]
    column = max(len(code) for code, _ in rows) // TAB + 1
    gaps = ["\t" * (column - len(code) // TAB) for code, _ in rows]
    return "".join(
        f"{code}{gap}{comment}\n" for (code, comment), gap in zip(rows, gaps, strict=True)
    )


def fold(words: str) -> str:
    """Break the words of `for each in WORDS; do`, indented by one tab, into lines."""
    lines, start = [""], TAB + len("for each in ")
    for word in words.split():
        if lines[-1] and start + len(f"{lines[-1]} {word}; do") > WIDTH:
            lines.append("")
            start = TAB + 4
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n\t    ".join(lines)


def render(script: Script, prefix: str, jinja: jinja2.Environment) -> str:
    """Return the text of a script."""
    return jinja.get_template(f"{script.kind}.j2").render(
        kind=script.kind, program=script.program, client=CLIENTS[script.program],
        period=script.directory, name=script.name, prefix=prefix,
    )  # fmt: skip


def write(destdir: str, prefix: str) -> None:
    """Write all scripts below DESTDIR/PREFIX."""
    jinja = environment()
    for script in scripts():
        path = Path(f"{destdir}{prefix}/{script.path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(render(script, prefix, jinja))
        os.chmod(path, 0o555)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write the scripts for periodic(8).")
    parser.add_argument("--destdir", default="", help="where the prefix is to be found")
    parser.add_argument("--prefix", default="/usr/local", help="/usr/local, or another")
    given = parser.parse_args()
    write(given.destdir, given.prefix.rstrip("/"))


if __name__ == "__main__":
    main()
