"""From a chosen checkpoint to a forecast in use."""
