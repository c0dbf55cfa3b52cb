"""Codes of one's own pictures and texts by a finished run, and search among them.

``encoder`` rebuilds the model of a run, ``collection`` keeps codes with their ids and the index
beside them, ``command`` is what ``main.py encode`` and ``main.py search`` do.
"""
