"""The mathematics of the pages uses only what both GitHub and the documentation site render."""

import re

import pytest

from tests.support.modules import ROOT

CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
# GitHub refuses \operatorname. Its Markdown takes a backslash before punctuation for an escape and
# removes it, so that `\,` would be a comma; two * would be emphasis, and `<b` a tag of HTML.
# A dollar beside a space neither begins nor ends a formula.
REFUSED = re.compile(
    r"\\operatorname|\\def\b|\\newcommand|\\[^A-Za-z]|\*|<[A-Za-z]|^\$\s|[^$]\s\$$"
)
# Commands that MathJax has, which both use; it shows the name of any other in red. Add a new one
# only once the built site shows it.
COMMANDS = frozenset(
    """
    alpha approx arctan arg ast bar begin beta big Big bigg cap cdot cdots circ cos cosh cr cup
    deg delta Delta det div dot dots ell end enspace epsilon equiv eta exists exp forall frac
    gamma Gamma ge geq gg hat iff implies in inf infty int iota kappa lambda Lambda langle
    lbrace lceil ldots le left leftarrow Leftarrow leq lfloor lim ln log lVert mapsto mathbb
    mathbf mathcal mathrm mathsf max mid min mu nabla ne neq nu odot omega Omega oplus otimes
    overline partial phi Phi pi Pi pm prod propto psi Psi qquad quad rangle rbrace rceil rfloor
    rho right Rightarrow rVert setminus sigma Sigma sim sin sqrt star subset sum sup tag tanh
    tau tbinom text textstyle texttt tfrac theta Theta tilde times to top underbrace varepsilon
    varphi vdots vec vee Vert wedge widehat widetilde xi Xi zeta
    """.split()
)


def list_refused(text: str) -> list[str]:
    """The formulas of a Markdown text that GitHub would refuse or change, or that have no sign."""
    return [
        found
        for found in FORMULA.findall(CODE.sub("", text))
        if REFUSED.search(found) or not COMMANDS.issuperset(re.findall(r"\\([A-Za-z]+)", found))
    ]


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))])
def test_github_renders_every_formula(page) -> None:
    assert list_refused(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "formula",
    [
        r"$\operatorname{sign}(0)$",
        r"$$a\,b$$",
        r"$a \thickspace b$",
        r"$\{U, W\}$",
        "$$a \\\\ b$$",
        "$L^*$",
        "$a<b$",
        "$a $",
    ],
)
def test_a_formula_that_github_would_change_is_noticed(formula: str) -> None:
    assert list_refused(f"With {formula} in `$\\,$` and the rest") == [formula]
