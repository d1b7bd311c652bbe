"""Forecasts without weights that every model has to beat."""
