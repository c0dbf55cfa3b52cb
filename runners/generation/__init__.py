"""Captions by a captioning model and pictures by a diffusion model, for methods that learn on them.

``command`` is what ``main.py generate`` calls; ``vtph`` and ``pzsh`` say what each method needs;
``painter``, ``creatures`` and ``captioner`` make it; ``folder`` keeps it; ``sheet`` shows it.
"""
