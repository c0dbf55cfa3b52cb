"""Layers that several methods share: heads, attention, dropout."""
