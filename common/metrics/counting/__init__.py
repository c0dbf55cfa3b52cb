"""Counting of histograms over Hamming distance, by back end, and closed forms over them."""
