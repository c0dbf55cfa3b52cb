"""Captions by a caption model and images by a diffusion model, for methods that train on them.

``generate`` is what ``main.py generate`` calls; ``base`` has what the methods share, ``vtph`` and
``pzsh`` what each needs.
"""
