#!/usr/bin/env python3
"""Draw the picture in README: the live system, the frozen datasets, the client inside.

    python3 docs/view.py > docs/view.svg

The words are few and large, so that they can be read on a telephone; what is frozen and what is
live is told by words and signs, not by colours alone. The picture brings its own background,
and another one where the reader prefers dark pages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

WIDTH, HEIGHT = 720, 508
TITLE = "A view of the live system in which the chosen datasets are frozen"
TEXT = (
    "Left, the live system: /, /home, /var/db and /media. Right, the view: / is the live one,"
    " /home and /var/db are frozen because they come from a snapshot, and /media is not in it."
    " The client, kopia or restic, runs inside the view and writes the backup into the repository."
)

LIGHT = {
    "page": "#ffffff", "ink": "#1f2328", "soft": "#f0f2f5", "line": "#6e7781",
    "live": "#fff1d6", "live-ink": "#7a4300", "frozen": "#d8ecff", "frozen-ink": "#0a4a8f",
    "client": "#1a7f37", "client-ink": "#ffffff",
}  # fmt: skip
DARK = {
    "page": "#0d1117", "ink": "#f0f6fc", "soft": "#1c2128", "line": "#9198a1",
    "live": "#4a3208", "live-ink": "#ffd58a", "frozen": "#0c3562", "frozen-ink": "#a9d6ff",
    "client": "#2ea043", "client-ink": "#04140a",
}  # fmt: skip

LEFT, RIGHT, BETWEEN = (12, 226), (388, 320), 312
FIRST, STEP, TALL = 96, 68, 56
PATHS = ("/", "/home", "/var/db", "/media")
SNAPSHOTS = ("/home", "/var/db")
IN_VIEW = PATHS[:-1]
BOTTOM = 400


def main() -> None:
    """Print the picture."""
    sys.stdout.write(draw())


def draw() -> str:
    """Return the picture as the text of an SVG file."""
    size = {"width": str(WIDTH), "height": str(HEIGHT), "viewBox": f"0 0 {WIDTH} {HEIGHT}"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img",
                          "aria-labelledby": "title text"})  # fmt: skip
    SubElement(svg, "title", id="title").text = TITLE
    SubElement(svg, "desc", id="text").text = TEXT
    SubElement(svg, "style").text = style()
    box(svg, (0, 0, WIDTH, HEIGHT), "page")
    box(svg, (LEFT[0], 16, LEFT[1], BOTTOM - 36), "soft")
    words(svg, "Live system", LEFT[0] + LEFT[1] / 2, 68, "head")
    box(svg, (RIGHT[0], 16, RIGHT[1], HEIGHT - 32), "soft")
    words(svg, "View", RIGHT[0] + RIGHT[1] / 2, 68, "head")
    for number, path in enumerate(PATHS):
        row(svg, path, FIRST + number * STEP)
    backup(svg)
    indent(svg, " ")
    return tostring(svg, "unicode") + "\n"


def style() -> str:
    """Return the rules for both backgrounds; a reader who has said nothing gets the light one."""
    fonts = (
        "text{font:28px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
        "text-anchor:middle}"
        ".path{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "text-anchor:start}"
        ".head{font-size:30px;font-weight:600}.end{text-anchor:end}"
        ".sign{fill:none;stroke-width:3;stroke-linecap:round;stroke-linejoin:round}"
    )
    return "\n".join(
        [fonts, *rules(LIGHT), "@media(prefers-color-scheme:dark){", *rules(DARK), "}"]
    )


def rules(colours: dict[str, str]) -> Iterator[str]:
    """Give the rules for one background."""
    for name in ("page", "soft", "live", "frozen", "client"):
        yield f".{name}{{fill:{colours[name]}}}"
    yield f"text{{fill:{colours['ink']}}}"
    for name in ("live", "frozen", "client"):
        ink = colours[f"{name}-ink"]
        yield f".on-{name}{{fill:{ink}}}.sign.on-{name}{{fill:none;stroke:{ink}}}"
    yield f".sign.line{{stroke:{colours['line']}}}.soft{{stroke:{colours['line']};stroke-width:2}}"


def row(svg: Element, path: str, top: int) -> None:
    """Draw a path of the live system, and what the view has of it."""
    middle = top + TALL / 2
    inside = LEFT[0] + 14, LEFT[1] - 28
    box(svg, (inside[0], top, inside[1], TALL), "live")
    words(svg, path, inside[0] + 14, middle + 10, "path on-live")
    wave(svg, inside[0] + inside[1] - 40, middle)
    if path not in IN_VIEW:
        return
    kind = "frozen" if path in SNAPSHOTS else "live"
    arrow(svg, LEFT[0] + LEFT[1] + 8, RIGHT[0] + 6, middle + 12)
    words(svg, "snapshot" if kind == "frozen" else "live", BETWEEN, middle)
    inside = RIGHT[0] + 14, RIGHT[1] - 28
    box(svg, (inside[0], top, inside[1], TALL), kind)
    words(svg, path, inside[0] + 14, middle + 10, f"path on-{kind}")
    words(svg, kind, inside[0] + inside[1] - 54, middle + 9, f"end on-{kind}")
    sign = flake if kind == "frozen" else wave
    sign(svg, inside[0] + inside[1] - (30 if kind == "frozen" else 40), middle)


def backup(svg: Element) -> None:
    """Draw the client inside the view, and the repository that it writes into."""
    tall = HEIGHT - BOTTOM - 30
    middle = BOTTOM + tall / 2
    box(svg, (LEFT[0], BOTTOM, LEFT[1], tall), "soft")
    words(svg, "Repository", LEFT[0] + LEFT[1] / 2, middle + 10, "head")
    box(svg, (RIGHT[0] + 14, BOTTOM, RIGHT[1] - 28, tall), "client")
    words(svg, "kopia or restic", RIGHT[0] + RIGHT[1] / 2, middle + 10, "head on-client")
    arrow(svg, RIGHT[0] + 6, LEFT[0] + LEFT[1] + 8, middle + 12)
    words(svg, "backup", BETWEEN, middle)


def box(svg: Element, place: tuple[float, float, float, float], kind: str) -> None:
    """Draw a rectangle: left, top, width and height."""
    names = ("x", "y", "width", "height")
    numbers = {name: f"{value:g}" for name, value in zip(names, place, strict=True)}
    SubElement(svg, "rect", {**numbers, "rx": "10", "class": kind})


def words(svg: Element, text: str, x: float, y: float, kind: str = "plain") -> None:
    """Write words; y is the line they stand on."""
    SubElement(svg, "text", {"x": f"{x:g}", "y": f"{y:g}", "class": kind}).text = text


def sign(svg: Element, path: str, kind: str) -> None:
    """Draw a line."""
    SubElement(svg, "path", {"d": path, "class": f"sign {kind}"})


def arrow(svg: Element, start: float, end: float, y: float) -> None:
    """Draw an arrow to the right or to the left."""
    back = end + (12 if end < start else -12)
    sign(
        svg, f"M{start:g} {y:g}H{end:g}M{back:g} {y - 9:g}L{end:g} {y:g}L{back:g} {y + 9:g}", "line"
    )


def wave(svg: Element, x: float, y: float) -> None:
    """Draw the sign of what changes."""
    sign(svg, f"M{x:g} {y:g}q7 -14 14 0t14 0", "on-live")


def flake(svg: Element, x: float, y: float) -> None:
    """Draw the sign of what stands still: three lines that cross."""
    lines = ((0, 16), (14, 8), (14, -8))
    sign(
        svg,
        "".join(f"M{x - dx:g} {y - dy:g}L{x + dx:g} {y + dy:g}" for dx, dy in lines),
        "on-frozen",
    )


if __name__ == "__main__":
    main()
