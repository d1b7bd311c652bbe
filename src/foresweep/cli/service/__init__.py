"""Commands of what is in service."""
