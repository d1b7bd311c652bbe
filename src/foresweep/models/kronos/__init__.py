"""Kronos behind the door of all models."""
