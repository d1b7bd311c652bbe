"""Chronos-2 behind the door of all models."""
