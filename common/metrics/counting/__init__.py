"""Histograms over Hamming distance, by back end, and closed forms of what is summed over them."""
