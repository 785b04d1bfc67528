"""Configuration of the documentation site; `scripts/docs_site.py` gathers its pages and starts Sphinx."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mindworks_site.reference import MISSING

from mindworks import __version__

project = "Mindworks"
release = version = __version__
copyright = "The Mindworks maintainers"
root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "mindworks_site.extension"]

# -- pages ------------------------------------------------------------------------------------------------------------
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto"]
smartquotes = False  # two hyphens are a flag, quotes are code
html_math_renderer = "mathml"
suppress_warnings = ["myst.header"]  # generated tables start below their page's own levels

# -- reference --------------------------------------------------------------------------------------------------------
default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_mock_imports = MISSING
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
add_module_names = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
viewcode_line_numbers = True

# -- look -------------------------------------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"Mindworks {release}"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which a browser refuses for local files
html_last_updated_fmt = None
pygments_style, pygments_dark_style = "default", "github-dark"
