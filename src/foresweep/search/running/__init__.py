"""Trials driven from their first line on record to their last."""
