"""A scene as SVG: a file for a light or a dark page, or a part of a page that defines the colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

from dynpin.lab.picture.scene import Box, Circle, Line, Mark, Rect, Scene, Text

__all__ = ["inline", "write"]

# Verdana is exactly as wide as DejaVu Sans, which the layout measures.
_FONT = "DejaVu Sans, Verdana, sans-serif"

_Color = Callable[[str], str]


def write(scene: Scene, paper: Mapping[str, str]) -> bytes:
    """An SVG file in the colours of a paper."""
    root = _root(scene.width, 0, scene.height)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    ET.SubElement(root, "title").text = scene.title
    ET.SubElement(root, "desc").text = scene.description
    whole = Rect(Box(0, 0, scene.width, scene.height), fill="ground")
    _draw(root, [whole, *scene.marks], paper.__getitem__)
    ET.indent(root, " ")
    return ET.tostring(root) + b"\n"


def inline(scene: Scene) -> list[str]:
    """`<svg>` elements, one below the other, for a page whose style sheet defines the colours as ``--picture-…``.

    They are parts of one picture, so the page must describe it as a whole.
    """
    cuts = [(0.0, 0), *scene.cuts, (scene.height, len(scene.marks))]
    parts: list[str] = []
    for (top, first), (bottom, last) in pairwise(cuts):
        root = _root(scene.width, top, bottom)
        root.set("aria-hidden", "true")
        _draw(root, scene.marks[first:last], lambda name: f"var(--picture-{name})")
        parts.append(ET.tostring(root, encoding="unicode"))
    return parts


def _root(width: float, top: float, bottom: float) -> ET.Element:
    wide, high = _number(width), _number(bottom - top)
    box = f"0 {_number(top)} {wide} {high}"
    return ET.Element("svg", {"width": wide, "height": high, "viewBox": box, "font-family": _FONT})


def _draw(root: ET.Element, marks: Sequence[Mark], color: _Color) -> None:
    for mark in marks:
        tag, attributes, text = _element(mark, color)
        ET.SubElement(root, tag, attributes).text = text


def _element(mark: Mark, color: _Color) -> tuple[str, dict[str, str], str | None]:
    match mark:
        case Line():
            way = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in mark.points) + ("Z" if mark.closed else "")
            given = _paint(color, mark.fill, mark.stroke, mark.width)
            if mark.dash:
                given["stroke-dasharray"] = " ".join(map(_number, mark.dash))
            return "path", {"d": way} | given, None
        case Rect():
            box = mark.box
            place = {"x": box.left, "y": box.top, "width": box.right - box.left, "height": box.bottom - box.top}
            place |= {"rx": mark.radius} if mark.radius else {}
            return "rect", _numbers(place) | _paint(color, mark.fill, mark.stroke, mark.width), None
        case Circle():
            place = {"cx": mark.x, "cy": mark.y, "r": mark.radius}
            return "circle", _numbers(place) | _paint(color, mark.fill, mark.stroke, mark.width), None
        case Text():
            given = _numbers({"x": mark.x, "y": mark.y, "font-size": mark.size}) | _paint(color, mark.color)
            given |= {"font-weight": "bold"} if mark.bold else {}
            given |= {"text-anchor": mark.anchor} if mark.anchor != "start" else {}
            return "text", given, mark.text


def _paint(color: _Color, fill: str | None = None, stroke: str | None = None, width: float = 1.0) -> dict[str, str]:
    given = {"fill": color(fill) if fill else "none"}
    if stroke:
        given |= {"stroke": color(stroke), "stroke-width": _number(width), "stroke-linejoin": "round"}
    return given


def _numbers(values: Mapping[str, float]) -> dict[str, str]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
