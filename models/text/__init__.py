"""Sentences about classes, and encoders of sentences."""
