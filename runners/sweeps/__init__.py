"""Grids of runs: expansion, the queue that workers share, launchers."""
