"""The colours of a picture, for light and dark pages.

Colour alone never carries meaning: a connection that passed has an arrow and a refused one has a bar, each outcome has
its word, each key a letter, and each kind of key holder a shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["DARK", "KEYS", "LIGHT", "key_color"]

# How many keys have a colour of their own; no colour is used twice in a picture.
KEYS = 16


def _paper(named: dict[str, str], keys: str) -> Mapping[str, str]:
    numbered = zip(range(KEYS), keys.split(), strict=True)
    return MappingProxyType(named | {key_color(number): color for number, color in numbered})


def key_color(number: int) -> str:
    """The name of the colour of a story's key, counted from 0. Further keys are black like text, and have letters."""
    return f"key-{number}" if number < KEYS else "ink"


# "good" and "bad" are Okabe and Ito's bluish green and vermilion: colour-blind people can tell them apart. No key has
# a colour like these two.
LIGHT = _paper(
    {
        "ground": "#fdfefd",
        "raised": "#eff5f3",
        "ink": "#0f2f2c",
        "faint": "#52706b",
        "rule": "#c3d4cf",
        "good": "#00704f",
        "bad": "#b84300",
        "dull": "#52706b",
        "on-key": "#ffffff",
    },
    "#0064a6 #8d3a78 #7a6000 #5443b0 #3b3b3b #1d7f96 #a13a55 #6b4a2f "
    "#0e0e63 #5a014d #460200 #1a2602 #7a6a6d #32520f #83191f #67168b",
)
DARK = _paper(
    {
        "ground": "#0e1716",
        "raised": "#182624",
        "ink": "#e6f2ef",
        "faint": "#9ab4ae",
        "rule": "#38514b",
        "good": "#35cf9d",
        "bad": "#ff9a4a",
        "dull": "#9ab4ae",
        "on-key": "#0e1716",
    },
    "#62baf0 #e79ac8 #e6d65c #b0a4ff #d4d9d8 #74d5e6 #ff9db0 #d8b08c "
    "#219a2c #827e8b #e96326 #5afaa4 #c665cf #8fb44a #588cff #3ca694",
)
