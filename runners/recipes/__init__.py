"""Whole recipes of runs in neutral words, and the recipes of papers that they are held against.

``describe`` states a run's recipe, from the encoder's weights and the crop to the choice of the
epoch and the measure. The sweeps of ``configs/sweep/papers`` are the papers' (``papers``): a number
of a paper is set beside a run only where nothing in the two recipes differs.
"""
