"""Every model behind one door: train, load, predict."""
