"""What periodic/render.py makes of the templates. Needs jinja2, as building the port does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
RENDER = CHECKOUT / "periodic/render.py"


def renderer() -> ModuleType:
    """Return the renderer as a module; skip what asks for it where there is no jinja2."""
    pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")
    spec = importlib.util.spec_from_file_location("render", RENDER)
    assert spec
    assert spec.loader
    sys.modules["render"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rendered(kind: str, prefix: str = "/usr/local") -> dict[str, str]:
    """Return for each program the text of what is rendered of a kind, such as "manual"."""
    render = renderer()
    jinja = render.environment()
    found = {
        each.program: render.render(each, prefix, jinja)
        for each in render.outputs()
        if each.kind == kind
    }
    assert found, kind
    return found
