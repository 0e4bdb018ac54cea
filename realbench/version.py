"""The version, for those that must not import the package's face."""

__version__ = "0.2.0.dev0"
