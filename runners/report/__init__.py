"""A report of finished runs: one HTML page, or the same tables as Markdown and LaTeX.

``study`` gathers rows and runs; ``curves``, ``training``, ``zero_shot``, ``gallery`` and
``published`` make what is shown of them; ``page`` and ``tables`` write it, ``files`` all of it.
Charts, tables and the gallery are drawn in the browser from data inside the page; nothing is
fetched. Words of captions, classes and paths enter the page as text nodes, never as markup.
"""
