"""The docket: published derivations, each with its claim as code and the verdict on it.

One module an entry. It defines ENTRY and `gradients`; an entry on a model of its own also defines
`params` and `loss`, so that `bptt verify FILE` judges the file as it stands.
"""
