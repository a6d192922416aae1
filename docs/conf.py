"""Sphinx: ``sphinx-build -W -b html docs docs/_build``."""

from __future__ import annotations

import builtins
import sys
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.logging import getLogger

import pytest_sockserver

project = "pytest-sockserver"
author = "the pytest-sockserver developers"
copyright = f"2026, {author}"
version = release = pytest_sockserver.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_display_short_literal_types = True

# A name that a page or a docstring mentions must be documented.
nitpicky = True

# Each public name, and the module that a test imports it from.
PUBLIC = {
    name: module
    for module in ("pytest_sockserver", "pytest_sockserver.faults", "pytest_sockserver.sweeps")
    for name in import_module(module).__all__
}

# Type variables, what is imported for type checkers only, and what another project documents.
UNKNOWN = (
    "T",
    "H",
    "Future",
    "Context",
    "ParameterSet",
    "pytest_sockserver.server.base.H",
    "hypothesis.strategies.SearchStrategy",
)
nitpick_ignore = [("py:class", name) for name in UNKNOWN]


def google_style(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """As napoleon does, but for properties: there it takes ``text: more text`` for a type and its description."""
    lines[:] = GoogleDocstring(lines, Config(), what="function").lines()


def resolve(app: Any, env: Any, node: Any, contnode: nodes.TextElement) -> nodes.Element | None:
    """Find what a signature calls by its home, ``pytest_sockserver.recording.events.Event``, under its public name.

    The standard library's names are taken as known, since a build needs no network; and so are our internal ones.
    """
    target = node.get("reftarget", "")
    top, _, _ = target.partition(".")
    name = target.rpartition(".")[2]
    if top in sys.stdlib_module_names or hasattr(builtins, top):
        return contnode
    if name in PUBLIC:
        py = env.get_domain("py")
        return py.resolve_xref(env, node["refdoc"], app.builder, "obj", f"{PUBLIC[name]}.{name}", node, contnode)
    ours = [module for at, module in list(sys.modules.items()) if at.partition(".")[0] == "pytest_sockserver"]
    return contnode if any(hasattr(module, name) for module in ours) else None


def check_complete(app: Any, env: Any) -> None:
    """Warn of each public name that the reference does not have."""
    documented = {entry[0] for entry in env.get_domain("py").get_objects()}
    for name, module in PUBLIC.items():
        if f"{module}.{name}" not in documented:
            getLogger("docs").warning("the reference lacks %s.%s", module, name)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", google_style)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", check_complete)
