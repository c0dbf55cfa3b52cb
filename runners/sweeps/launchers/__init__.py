"""Ways to start the workers of a sweep; what is true of the runs is in the store alone."""
