"""t0 of The Forecasting Company as a model of foresweep."""
