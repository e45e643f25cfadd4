"""The colours of every plot and drawing, which readers of all kinds of colour vision can tell apart.

Okabe and Ito, "Color Universal Design", 2008 (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""In the order in which the lines of a plot take them."""
GREY, GRID, SHADE = "#595959", "#D0D0D0", "#E8E8E8"
"""Words beside the data, lines behind them, areas behind them."""


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue in 0..255.

    >>> rgb(ORANGE)
    (230, 159, 0)
    """
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def shades(count: int) -> tuple[str, ...]:
    """Return greys from `SHADE` to white: what lies behind the classes of each of ``count`` groups.

    >>> shades(2)
    ('#E8E8E8', '#FFFFFF')
    """
    darkest = rgb(SHADE)[0]
    levels = (darkest + round((255 - darkest) * number / max(count - 1, 1)) for number in range(count))
    return tuple(f"#{level:02X}{level:02X}{level:02X}" for level in levels)
