"""Trains the embedded detectors; reached as ``realbench detectors train``."""
