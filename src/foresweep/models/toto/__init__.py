"""Toto 1.0 behind the door of all models."""
