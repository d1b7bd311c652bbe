"""Statistics that decide whether a lead is more than luck."""
