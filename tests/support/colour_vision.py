"""Colours as people with a colour-vision deficiency see them, and how far apart they look."""

from itertools import combinations, product

import numpy as np

# Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision
# deficiency" (2009), at full severity, on linear RGB; and ordinary vision.
VISIONS = {
    "ordinary": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # of linear RGB


def find_linear(colour: str) -> np.ndarray:
    """The linear RGB of a colour such as #0072b2."""
    c = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def find_contrast(*colours: str) -> float:
    """The contrast of two colours as the Web Content Accessibility Guidelines 2 define it."""
    low, high = sorted(float(XYZ[1] @ find_linear(colour)) for colour in colours)
    return (high + 0.05) / (low + 0.05)


def find_lab(linear: np.ndarray) -> np.ndarray:
    """The coordinates L*, a* and b* of a linear RGB colour."""
    ratios = XYZ @ np.clip(linear, 0, 1) / XYZ.sum(axis=1)
    f = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def find_nearest(colours: list[str]) -> tuple[float, str]:
    """The smallest distance ΔE of two of the colours in any vision, and that vision."""
    return min(
        (float(np.linalg.norm(find_lab(vision @ a) - find_lab(vision @ b))), name)
        for (name, vision), (a, b) in product(
            VISIONS.items(), combinations(map(find_linear, colours), 2)
        )
    )
