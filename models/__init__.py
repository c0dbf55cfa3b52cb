"""Hashing methods, one file each, and what they share: backbones, heads, hash centres."""
