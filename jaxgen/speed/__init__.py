"""Where the time goes: in training, in sampling, in networks alone."""
