"""Where trials execute: processes of this machine, or tasks of a Ray cluster."""
