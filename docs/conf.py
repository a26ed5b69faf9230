"""The site: Sphinx with Furo and MyST, built strictly (every warning and every dangling reference is an error)."""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers import BashLexer
from sphinx.highlighting import lexers

import dynpin

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from fault_pages import write_pages  # noqa: E402 - they stand beside this file
from generated import write_generated  # noqa: E402

# A page for each fault that the linter knows, for each command, and for the collector's settings: from the code itself.
write_pages(DOCS / "reference" / "faults")
write_generated(DOCS / "reference")

project = "dynpin"
author = "dynpin maintainers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
version = release = dynpin.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
# The types of the standard library and of others have their pages elsewhere; every name of dynpin must resolve here.
# Type variables have no page of their own, nor have bases that only mark or hold for others.
nitpick_ignore_regex = [
    ("py:.*", r"(?!dynpin\.).*"),
    ("py:(class|obj)", r"dynpin\..*\.(_\w+|Entry|ChecksPins|ClientWithPins|NotCopied)"),
]

myst_enable_extensions = ["colon_fence", "deflist", "smartquotes"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = "dynpin"
html_static_path = ["_static"]
html_css_files = ["dynpin.css"]
html_js_files = [("tables.js", {"defer": ""})]
html_favicon = "_static/favicon.svg"
html_show_sphinx = False
html_copy_source = False
# Pygments does not know these; their comments and quotes are those of a shell.
lexers |= {"haproxy": BashLexer(), "logrotate": BashLexer()}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_logo": "logo-light.svg",
    "dark_logo": "logo-dark.svg",
    "sidebar_hide_name": True,
    "navigation_with_keys": True,
    "top_of_page_buttons": [],
}
