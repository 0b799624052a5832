"""The judge: compares derivations with autodiff, says where and why they differ.

Knows both witnesses; neither knows it. Also the command line, `bptt`.
"""
