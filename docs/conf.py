"""The documentation site: Sphinx reads Markdown by MyST; ``make docs`` builds it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

project = "Deep hashing, compared"
author = copyright = ""
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "generate", "**/README.md"]
myst_heading_anchors = 4
highlight_language = "text"  # of code blocks that name none
nitpicky = True
smartquotes = False

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
    "dark_css_variables": {"font-stack": "system-ui, sans-serif"},
}

# Documents outside this folder that the site shows as pages; the files of that name here say where
# they are, for readers of the repository.
PAGES = {
    "README.md": "index",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "tests/golden/README.md": "recorded_numbers",
}
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def show_pages(app: Any, docname: str, source: list[str]) -> None:
    """Give pages of outside documents their text, and point links to these to the pages."""
    docs = Path(app.srcdir)
    here = folder = (docs / docname).parent
    outside = next((name for name, page in PAGES.items() if page == docname != root_doc), None)
    if outside is not None:
        file = docs.parent / outside
        app.env.note_dependency(str(file))
        source[0], folder = file.read_text(encoding="utf-8"), file.parent

    def moved(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[2]))
        if target.is_relative_to(docs.parent):
            page = PAGES.get(target.relative_to(docs.parent).as_posix())
            target = target if page is None else docs / f"{page}.md"
        return f"{found[1]}{os.path.relpath(target, here)}{found[3]}"

    source[0] = _LINK.sub(moved, source[0])


def setup(app: Any) -> None:
    """Register the hook."""
    app.connect("source-read", show_pages)
