"""References: what is true of a case, by autodiff, and who confirms it."""
