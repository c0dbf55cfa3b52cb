"""Leaves: helpers that know nothing of hashing and import nothing else of the project."""
