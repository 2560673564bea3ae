"""The pages as a site: `make docs` builds it offline, and a warning is an error."""

import re

import canthus

project = "canthus"
author = "The canthus authors"
copyright = "the canthus authors"
version = release = canthus.__version__
html_theme = "furo"
html_title = f"canthus {release}"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"navigation_with_keys": True}
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
default_role = "literal"  # docstrings mark code by single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
suppress_warnings = ["ref.python"]  # `Faces` is both canthus.Faces and canthus.face.faces.Faces


NAMED = re.compile(r"^([a-z_][\w, ]{0,40}): (?=\S)")


def as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text with code in backquotes; a line `name: text` explains a parameter or a field.

    The latter become lists, and what reStructuredText would take for markup is escaped.
    """
    text, listed = [], False
    for line in lines:
        parts = line.strip().split("`")
        parts[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        line = "`".join(parts)
        if named := NAMED.match(line):
            if not listed:
                text.append("")
            text.append(f"- ``{named[1]}``: {line[named.end() :]}")
            listed = True
        elif listed and line and not line.startswith("Raises"):
            text.append(f"  {line}")
        else:
            if listed and line:
                text.append("")
            text.append(line)
            listed = False
    lines[:] = text


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_rst)
