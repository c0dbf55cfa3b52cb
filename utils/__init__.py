"""Helpers that are independent of hashing and import no other package of the project."""
