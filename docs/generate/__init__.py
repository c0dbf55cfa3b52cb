"""Pages and tables that are made from the code, the configurations and recorded numbers.

``make docs`` runs ``python -m docs.generate``, which writes them; ``tests/docs/test_generated.py``
makes them again and fails where what is committed is older. Markdown alone is made here; Sphinx
(``docs/conf.py``) builds the site of it.
"""
