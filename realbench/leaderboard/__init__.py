"""Leaderboards: boards whose entries are files, verified and built into tables by commands."""
