"""What every method and dataset shares; this package knows none of them by name."""
