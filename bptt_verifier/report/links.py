"""Addresses of the documentation's pages, which reports link to."""

# The documentation site. A fork that publishes its own changes this line.
SITE = "https://verified-bptt.readthedocs.io/en/latest"


def link_to_mistake(name: str) -> str:
    """Return the address of a mistake in the catalogue, by its stable name."""
    return f"{SITE}/mistakes.html#{name}"


def link_to_equation(tag: str) -> str:
    """Return the address of an equation of the derivation, by its tag, such as B3."""
    return f"{SITE}/derivation.html#equation-{tag.lower()}"
