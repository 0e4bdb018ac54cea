"""Run folders: made, locked, named and read back; their files are written whole."""
