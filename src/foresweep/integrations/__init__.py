"""Other trackers as mirrors of ours: they are told what happens and never asked."""
