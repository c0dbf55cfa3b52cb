"""Leaves: helpers that know nothing of hashing and import nothing of the project's other packages."""
