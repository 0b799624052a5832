"""hanbt/learn_dl: the biases of an LSTM."""

from typing import Any

from bptt_verifier.docket.entry import DISAGREES, Entry
from manual_bptt import lstm

ENTRY = Entry(
    title="Bias gradients of three gates from the forget gate's δ",
    source="hanbt/learn_dl on GitHub, lstm.py, calc_gradient_t, before pull request 63 (2026)",
    claim=(
        "∂E/∂b_f = Σ_t δ_f,t,  ∂E/∂b_i = Σ_t δ_f,t,  ∂E/∂b_o = Σ_t δ_f,t,  ∂E/∂b_c = Σ_t δ_c̃,t",
    ),
    convention="δ of a gate is ∂E/∂net of that gate, a column vector.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole file, issue 53, and pull request 63, which mends it",
    reading="None known: the code's own text has each bias with the δ of its gate.",
    corrected=("∂E/∂b_i = Σ_t δ_i,t,  ∂E/∂b_o = Σ_t δ_o,t",),
    model="lstm",
    bias=True,
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    # The other gradients are this project's; other lines of the source are other entries.
    found: Any = lstm.value_and_grad(lstm.Params(*params), x, y)[1]
    H = params.W.shape[1]
    b = found.b.copy()
    b[:H] = found.b[H : 2 * H]
    b[3 * H :] = found.b[H : 2 * H]
    return found._replace(b=b)._asdict()
