"""Published claims that have no entry in the docket, and what is missing for one."""

ABSENT = (
    ("Goodfellow, Bengio & Courville, Deep Learning, section 10.2.2, in English",
     "no printing was seen; deep-learning-columns is about a translation"),
    ("hanbt/learn_dl, the article's equation (13), which issue 33 questions",
     "a product over the steps of sums of rows, as the issue reads it, which is not defined for "
     "more than one unit, so that no code can be written from it; the article was not seen"),
    ("deeplearning.ai, the LSTM exercise before version 3b",
     "numbers that were later replaced; the formulas behind them were not seen"),
    ("Edinburgh NLU coursework", "figures of a program, no formulas"),
    ("d2l-ai/d2l-en, equation (8.7.4) before pull request 431",
     "the request says that it is wrong for i = t; the formula itself was not seen"),
    ("R. C. Staudemeyer & E. R. Morris, arXiv:1909.09586, errors in earlier papers on LSTM",
     "the paper was not seen"),
)  # fmt: skip
