"""The one engine that scores models and baselines on the same windows."""
