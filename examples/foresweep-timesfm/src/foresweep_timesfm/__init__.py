"""TimesFM 2.5 as a model of foresweep."""
