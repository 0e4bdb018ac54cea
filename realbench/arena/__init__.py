"""Arena-Scoring: which of two images is the more realistic photograph, and what follows of it."""
