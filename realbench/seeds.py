"""Which seeds there are."""

MAX_SEED = 2**32 - 1
"""The largest that numpy's global generator takes."""
