"""README.md and docs/: short where it begins, links that lead somewhere, a picture to read."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.machine import CHECKOUT

README = CHECKOUT / "README.md"
PAGES = sorted((CHECKOUT / "docs").glob("*.md"))
SCRIPT, PICTURE = CHECKOUT / "docs/view.py", CHECKOUT / "docs/view.svg"
SVG = "{http://www.w3.org/2000/svg}"
TEXTS = [README, CHECKOUT / "tests/README.md", *PAGES]


def links(text: Path) -> list[str]:
    """Return where the links and pictures of a text lead, but not those to other machines."""
    found = re.findall(r'\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"', text.read_text())
    return [one or other for one, other in found if "://" not in (one or other)]


def anchors(text: Path) -> set[str]:
    """Return the anchors of a text, made of its headings as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", prose, re.M)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_the_readme_is_what_a_first_reader_needs():
    assert len(README.read_text().splitlines()) < 150


def test_every_page_is_named_in_the_readme():
    assert PAGES
    assert {f"docs/{each.name}" for each in PAGES} <= {each.split("#")[0] for each in links(README)}


@pytest.mark.parametrize("text", TEXTS, ids=lambda each: str(each.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(text):
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = text.parent / name if name else text
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_the_picture_is_what_the_script_draws():
    drawn = subprocess.run(
        [sys.executable, str(SCRIPT)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert PICTURE.read_text() == drawn


def test_the_picture_has_few_words_that_a_telephone_shows_large_enough():
    svg = ElementTree.parse(PICTURE).getroot()
    assert svg.tag == f"{SVG}svg"
    width = int(svg.get("width"))
    assert svg.get("viewBox") == f"0 0 {width} {svg.get('height')}"
    told = [each.text for each in svg.iter(f"{SVG}text")]
    assert {"Live system", "View", "frozen", "kopia or restic"} <= set(told)
    assert len(" ".join(told).split()) <= 24
    sizes = [int(size) for size in re.findall(r"(\d+)px", svg.find(f"{SVG}style").text)]
    assert min(sizes) * 360 / width >= 13


def test_the_picture_says_in_words_what_it_shows(script):
    svg = ElementTree.parse(PICTURE).getroot()
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "title text"
    named = {each.get("id"): each.text for each in svg if each.get("id")}
    assert named == {"title": script["TITLE"], "text": script["TEXT"]}
    # On the first screen, so that a browser in a terminal shows the words there.
    beginning = " ".join(README.read_text().splitlines()[:20])
    alternative = re.search(r'<img src="docs/view.svg" width="\d+" alt="([^"]*)">', beginning)[1]
    assert alternative == script["TEXT"]


@pytest.mark.parametrize("background", ["LIGHT", "DARK"])
def test_the_words_stand_out_on_either_background(background, script):
    colours = script[background]
    pairs = [("page", "ink"), ("soft", "ink"), ("page", "line")]
    pairs += [(each, f"{each}-ink") for each in ("live", "frozen", "client")]
    for below, above in pairs:
        ratio = contrast(colours[below], colours[above])
        # As the accessibility guidelines (WCAG 2.2) want it of words and of lines.
        assert ratio >= (3 if above == "line" else 4.5), (below, above, ratio)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.2 reckons it."""
    darker, lighter = sorted(luminance(each) for each in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return sum(part * by for part, by in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
