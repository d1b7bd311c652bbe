"""What happens to a run after its verdict: service, and the way back to the next sweep."""
