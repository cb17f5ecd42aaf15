"""Sphinx configuration.

Notebooks are committed with their outputs. An ordinary build (`ci/test`) shows the outputs as they
are, so that it takes seconds and needs no data; `ci/docs` sets XAPPA_DOCS_EXECUTE=force, which
executes every notebook afresh and fails on any error; `ci/docs --save` writes new outputs into the
notebooks. Nothing is read from the network.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

root = Path(__file__).parent.parent
sys.path.insert(0, str(root))

project = "xappa"
author = "xappa developers"
copyright = author
release = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", ".jupyter_cache", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

nb_execution_mode = os.environ.get("XAPPA_DOCS_EXECUTE", "off")
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
default_role = "py:obj"

html_theme = "pydata_sphinx_theme"
html_title = f"xappa {release}"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": False,
}
html_show_sourcelink = False
