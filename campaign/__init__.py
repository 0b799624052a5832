"""A campaign: the judge's verdicts on random right and wrong gradients of random models."""
