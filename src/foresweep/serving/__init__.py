"""Forecasts over HTTP: the champion of a slot, swapped while it answers."""
