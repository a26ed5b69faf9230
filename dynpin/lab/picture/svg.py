"""A scene as SVG: a file of its own for a light or a dark page, or a part of a page that lends its colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.etree import ElementTree as ET

from dynpin.lab.picture.scene import Circle, Line, Mark, Rect, Scene, Text

__all__ = ["inline", "write"]

# Verdana is exactly as wide as DejaVu Sans, which the layout measures.
_FONT = "DejaVu Sans, Verdana, sans-serif"

_Color = Callable[[str], str]


def write(scene: Scene, paper: Mapping[str, str]) -> bytes:
    """An SVG file in the colours of a paper."""
    root = _root(scene, paper.__getitem__)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    ET.SubElement(root, "title").text = scene.title
    ET.SubElement(root, "desc").text = scene.description
    _draw(root, scene, paper.__getitem__)
    ET.indent(root, " ")
    return ET.tostring(root) + b"\n"


def inline(scene: Scene) -> str:
    """An `<svg>` element for a page whose style sheet defines each colour of a paper as ``--picture-NAME``."""

    def color(name: str) -> str:
        return f"var(--picture-{name})"

    root = _root(scene, color)
    root.set("role", "img")
    root.set("aria-label", f"{scene.title}. {scene.description}")
    _draw(root, scene, color)
    return ET.tostring(root, encoding="unicode")


def _root(scene: Scene, color: _Color) -> ET.Element:
    size = {"width": _number(scene.width), "height": _number(scene.height)}
    root = ET.Element("svg", size | {"viewBox": f"0 0 {size['width']} {size['height']}", "font-family": _FONT})
    ET.SubElement(root, "rect", size | _paint(color, fill="ground"))
    return root


def _draw(root: ET.Element, scene: Scene, color: _Color) -> None:
    for mark in scene.marks:
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
