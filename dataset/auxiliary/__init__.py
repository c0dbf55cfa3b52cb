"""Further inputs of rows: captions and images that were generated."""
