"""Procedures: build an experiment, train, encode, measure; sweeps and reports over many."""
