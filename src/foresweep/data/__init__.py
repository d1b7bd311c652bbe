"""Prices in, checked panels and windows out."""
