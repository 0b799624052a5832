"""Names of data, inputs, states and targets, and of parameters, as public code has them."""

import re
from typing import Any

STATES = frozenset("h hs hprev h_prev c cprev c_prev s state states hidden".split())
INPUTS = frozenset(
    "x xs xt x_t x_train xb x_batch input inputs inp inps data batch seq seqs sequence sequences "
    "features feats observation observations obs images samples signal signals frames tokens mask "
    "masks".split()
)
TARGETS = frozenset(
    "y ys yt y_t y_true ytrue y_train yb y_batch target targets tgt tgts label labels lbl lbls "
    "truth truths ground_truth gt gold desired expected wanted goal goals ref refs reference "
    "references teacher teachers answer answers correct onehot one_hot y_onehot reward rewards "
    "action actions".split()
)


# Names of parameters: short ones such as `wxh` and `b_out`, words, and those of a capital letter.
PARAMETER = re.compile(
    r"[A-Z]|[wuvbk](_|\d|\w{0,3}$)|(syn|theta|alpha|beta|gamma|scale|shift|gain|emb|param|weight|bias"
    r"|kernel|filter|conv|dense|layer|mat|lin|proj|gate|offset|intercept|slope|coef|init|thresh|amp)"
)


def find_kind(key: Any) -> frozenset[str]:
    """Find the set of names of data that a name is one of; empty for that of a parameter."""
    name = str(key).rstrip("_0123456789")
    name = name if name in {"C", "S"} else name.lower()  # these are matrices
    return next((kind for kind in (STATES, INPUTS, TARGETS) if name in kind), frozenset())


def is_parameter_name(name: Any) -> bool:
    """True for a name of a parameter, or of inputs and states, whose gradients a layer returns."""
    return bool(PARAMETER.match(str(name)) or find_kind(name))
