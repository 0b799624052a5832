"""A template for an entry of the docket. `bptt docket examples/docket_entry.py`

Replace every text and the code, and put the file into `bptt_verifier/docket`. An entry on this
project's RNN, LSTM or GRU has `model="rnn"`, `"lstm"` or `"gru"` and `gradients(params, x, y)`
instead of `params`, `loss` and `gradients(params)`.
"""

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="The claim in a few words",
    source="Authors, title, edition or version, number of the equation, address",
    claim=("s_t = w s_{t−1} + x_t,  L = s_T² / 2", "∂L/∂w = Σ_t w^{T−t} s_{t−1} s_T"),
    convention="Rows or columns; what is a total derivative and what a direct one; the sizes.",
    verdict=AGREES,  # or DISAGREES
    seen=False,  # True if you have the source itself before you
    rests_on="the source, or the quotation of it that you have seen",
    reading="The reading under which the verdict is another, or that there is none.",
    mistake=(),  # of a wrong claim: the name that the judge gives, unless that is unknown
    corrected=(),  # of a wrong claim: the right formulas
    # Of an approximation: `exactly`, `deliberate`, and `held_loss`, see CONTRIBUTING.md.
)

x = np.array([0.5, -1.0, 2.0])
params = {"w": np.array(0.7)}


def loss(p):
    s = 0.0
    for x_t in x:
        s = p["w"] * s + x_t
    return s**2 / 2


def gradients(p):
    s, T = [0.0], len(x)
    for x_t in x:
        s.append(p["w"] * s[-1] + x_t)
    return {"w": sum(p["w"] ** (T - t) * s[t - 1] * s[T] for t in range(1, T + 1))}
