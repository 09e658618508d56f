"""README.md and docs/: short where it begins, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.machine import CHECKOUT

README = CHECKOUT / "README.md"
PAGES = sorted((CHECKOUT / "docs").glob("*.md"))
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
