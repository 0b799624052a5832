"""Configuration of the documentation site. `make docs` builds it."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "extensions"))

METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project, version = METADATA["name"], METADATA["version"]
release, copyright = version, METADATA["authors"][0]["name"]  # noqa: A001 - Sphinx's name
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
    "equation_lines",
    "empty_outputs",
]
exclude_patterns = ["extensions"]
nitpicky = True
nitpick_ignore_regex = [
    # Types of libraries and of Python: their pages are on the network, which a build does not use.
    (r"py:.*", r"(?!manual_bptt|jax_reference|bptt_verifier).*"),
    (r"py:class", r".*\.P"),  # type variables
]

# Markdown.
myst_enable_extensions = ["dollarmath", "attrs_block", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# Notebooks run anew in each build. An exception in one ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

# Signatures.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 72

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
