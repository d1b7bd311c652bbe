"""Which run is best, and by how much."""
