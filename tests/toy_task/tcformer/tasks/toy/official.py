"""There are no official discs."""

OFFICIAL = None
