"""What a configuration does, in the neutral words that recipes of releases are written in."""
