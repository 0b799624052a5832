"""The sweeps of each cell in arrays that are made once: `rnn`, `lstm` and `gru`.

`manual_bptt.workspace` runs them. Each module has a class `Sweeps`, which holds the arrays of one
segment of steps.
"""
