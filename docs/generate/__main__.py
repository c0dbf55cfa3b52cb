"""``python -m docs.generate``: write what is generated, remove pages of methods that are gone."""

from __future__ import annotations

from docs.generate.facts import DOCS, ROOT
from docs.generate.pages import pages


def main() -> None:
    """Write every generated page whose text has changed, and say which."""
    made = pages()
    for file in (DOCS / "methods").glob("*.md"):
        if file not in made:
            file.unlink()
    for file, text in made.items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
