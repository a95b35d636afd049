"""The trainer, the run that it trains, and one step of it."""
