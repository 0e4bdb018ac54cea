"""TOML files: read, written, and checked against a schema."""
