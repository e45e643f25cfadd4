"""Colours of plots and drawings that are distinguishable with colour blindness.

Okabe and Ito, "Color Universal Design", 2008 (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""Colours of a plot's lines, in order."""
GREY, GRID, SHADE = "#595959", "#D0D0D0", "#E8E8E8"
"""Text, grid lines, background areas."""


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue in 0..255.

    >>> rgb(ORANGE)
    (230, 159, 0)
    """
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def shades(count: int) -> tuple[str, ...]:
    """Return greys from `SHADE` to white, the background of each of ``count`` class groups.

    >>> shades(2)
    ('#E8E8E8', '#FFFFFF')
    """
    darkest = rgb(SHADE)[0]
    levels = (darkest + round((255 - darkest) * number / max(count - 1, 1)) for number in range(count))
    return tuple(f"#{level:02X}{level:02X}{level:02X}" for level in levels)
