"""Datasets: rows of pictures, texts and labels with a split manifest, one file for each source."""
