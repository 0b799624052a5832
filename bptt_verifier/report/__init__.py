"""Reports: a verdict as data, and its renderings as text, page and plain values."""
