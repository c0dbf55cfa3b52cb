"""Hash centers: how they are made, and what they are made from."""
