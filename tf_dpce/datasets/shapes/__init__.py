"""Drawn scenes with captions that are true by construction: the demo's and the tests' data."""
