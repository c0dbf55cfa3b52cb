"""Datasets with official files: one file each, read by ``main.py prepare``."""
