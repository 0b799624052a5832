"""The whole training step, derived by hand against autodiff and against peers, on CPU and GPU.

`python -m benchmarks --help`; docs/performance.md says how to read what it prints.
"""
