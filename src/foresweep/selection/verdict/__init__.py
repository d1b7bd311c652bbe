"""Promote, hold or naive wins: the gates, the sealed test and the reasons."""
