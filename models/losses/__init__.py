"""Terms of losses that several methods share."""
