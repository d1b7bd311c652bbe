"""Fracast-0 as a model of foresweep."""
