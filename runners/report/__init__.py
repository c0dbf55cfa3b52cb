"""A report of finished runs: one HTML page, or the same tables as Markdown and LaTeX.

``study`` holds the rows and runs; ``curves``, ``zero_shot_section``, ``gallery`` and
``published`` compute what is shown of them; ``page`` writes the page, ``files`` all that is asked
for. Charts, tables and the gallery are drawn in the browser from data inside the page; nothing is
fetched. Words of captions, classes and paths enter the page as text nodes, never as markup.
"""
