"""The one training loop of all families, and what a step of it is made of."""
