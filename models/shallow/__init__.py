"""Methods without gradient, fitted once to features, one file each."""
