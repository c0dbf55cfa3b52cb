"""Configurations: layers of YAML, the schema they are checked by, and the resolved run."""
