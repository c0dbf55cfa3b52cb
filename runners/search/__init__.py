"""Codes of new images and texts by the model of a finished run, and search among them.

``encoder`` restores the model of a run, ``collection`` stores codes with their ids and an index,
``search`` is what ``main.py encode`` and ``main.py search`` call.
"""
