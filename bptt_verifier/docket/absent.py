"""Published claims that have no entry in the docket, and what is missing for one."""

ABSENT = (
    ("Edinburgh NLU coursework", "figures of a program, no formulas"),
    ("R. C. Staudemeyer & E. R. Morris, arXiv:1909.09586, errors in earlier papers on LSTM",
     "of the paper only the abstract was seen, which says that there are errors and not which"),
)  # fmt: skip
