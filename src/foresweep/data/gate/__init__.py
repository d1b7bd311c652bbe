"""Raw bars in, a checked panel and its findings out."""
