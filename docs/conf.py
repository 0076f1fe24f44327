"""Configuration of the documentation site; `make docs` builds it."""

import os
import re
import sys
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import lightning_chex  # noqa: E402  # after the path, so that the pages are those of this checkout

project = "lightning_chex"
author = "lightning_chex developers"
copyright = f"2026, {author}"
version = release = lightning_chex.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

# `name` in docstrings links to the object of that name, where there is one
default_role = "py:obj"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
# their docstrings are those of torch and Lightning, and cite pages that are not part of this site
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
# else attributes of named tuples would be described twice
napoleon_use_ivar = True

# inventories are fetched from the network, which a build may not have
if os.environ.get("CHEX_DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable", None),
    }

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# the notebooks are run by the tests, and shown here with the outputs that are committed
nb_execution_mode = "off"
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = f"lightning_chex {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"navigation_with_keys": True}


def copy_sources(source: Path, target: Path, *patterns: str) -> None:
    """Copy files that lie outside of this folder to where Sphinx finds them."""
    target.mkdir(exist_ok=True)
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            content = path.read_bytes()
            if path.suffix == ".md":
                # a link to a folder of scripts leads out of the site: keep its text
                content = re.sub(rb"\[([^]]+)\]\(\.\./[^)]*\)", rb"\1", content)
                # a page has one title: later ones become sections
                title, newline, rest = content.partition(b"\n")
                content = title + newline + re.sub(rb"^# ", b"## ", rest, flags=re.MULTILINE)
            copy = target / path.name
            # an unchanged copy keeps its time, so that Sphinx does not read it again
            if not copy.exists() or copy.read_bytes() != content:
                copy.write_bytes(content)


copy_sources(ROOT / "notebooks", DOCS / "notebooks", "*.ipynb")
copy_sources(ROOT / "benchmarks" / "results", DOCS / "results", "*.md", "*.jpg", "*.png")


def write_mathml(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers show without a script from the network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the writer of formulas."""
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))


html_math_renderer = "mathml"
