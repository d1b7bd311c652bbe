"""Which configs are tried, in what order, and in which process."""
