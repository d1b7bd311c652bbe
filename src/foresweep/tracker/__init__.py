"""One database of every run."""
