"""A rotation as a picture: bars for what is deployed and what clients hold, in the terminal and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from rich.text import Text

from dynpin.pins import Pin

from .history import Deployed, History, Published
from .machine import Step, held

__all__ = ["Bar", "Timeline", "svg", "terminal", "timeline"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A period: `solid` until `fades_at`, and after that only in the memory of clients."""

    label: str
    kind: str
    start: float
    fades_at: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The content of the picture, from `start` to `end`."""

    host: str
    now: float
    start: float
    end: float
    bars: tuple[Bar, ...]
    marks: tuple[tuple[float, str], ...]


def timeline(history: History, now: float, steps: Sequence[Step] = (), *, max_max_age: int | None = None) -> Timeline:
    """The bars of a history, and of the planned steps, as if each is done on its day."""
    planned = history
    for step in steps:
        # The clock may have been set back since the last event.
        at = max([step.at, *(event.at for event in planned.events[-1:])])
        if step.key is not None:
            planned = planned.with_event(Deployed(at, (step.key,)))
        elif step.header is not None:
            planned = planned.with_event(Published(at, step.header))
    last = max([now, *(event.at for event in planned.events)])
    bars = [*_key_bars(planned, last), *_policy_bars(planned, last, max_max_age)]
    start = min([now, *(bar.start for bar in bars)])
    end = max([now, *(bar.end for bar in bars)])
    marks = [(now, "now"), *((step.at, step.name) for step in steps)]
    return Timeline(history.host, now, start, max(end, start + 1), tuple(bars), tuple(marks))


def _key_bars(history: History, last: float) -> list[Bar]:
    deployed = [event for event in history.events if isinstance(event, Deployed)]
    ends = [event.at for event in deployed[1:]] + [last]
    return [
        Bar(f"key {_short(event.chain[0])}", "key", event.at, end, end)
        for event, end in zip(deployed, ends, strict=False)
        if event.chain
    ]


def _policy_bars(history: History, last: float, max_max_age: int | None) -> list[Bar]:
    bars: list[Bar] = []
    published = [event for event in history.events if isinstance(event, Published)]
    for index, event in enumerate(published):
        if event.header is None or not event.header.max_age:
            continue
        end = published[index + 1].at if index + 1 < len(published) else last
        # The bar follows the rule for decisions: what clients hold when the header was last sent.
        policy = next(
            (each for each in held(history, end, max_max_age=max_max_age) if each.header == event.header), None
        )
        until = end if policy is None else policy.until
        label = " ".join(_short(pin) for pin in event.header.pins[:4])
        bars.append(Bar(f"pins {label}", "policy", event.at, end, until))
    return bars


def _short(pin: Pin) -> str:
    return str(pin)[:5]


def _date(at: float, picture: Timeline) -> str:
    """A day; if the picture covers only a few days, with the minute."""
    short = picture.end - picture.start < 3 * 86_400
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ" if short else "%Y-%m-%d")


def terminal(picture: Timeline, width: int = 80) -> Text:
    """The picture in characters: █ deployed or sent, ░ held by clients, │ now."""
    label_width = min(26, max([8, *(len(bar.label) for bar in picture.bars)]))
    room = max(20, width - label_width - 3)
    span = picture.end - picture.start
    text = Text()

    def column(at: float) -> int:
        return min(room - 1, max(0, int((at - picture.start) / span * room)))

    now = column(picture.now)
    for bar in picture.bars:
        text.append(f"{bar.label[:label_width]:<{label_width}} ")
        solid, end = column(bar.fades_at), column(bar.end)
        for index in range(room):
            inside = column(bar.start) <= index <= end
            character = "█" if inside and index <= solid else "░" if inside else " "
            style = ("green" if bar.kind == "key" else "cyan") if inside else ""
            text.append(
                "│" if index == now and character == " " else character, style="bold" if index == now else style
            )
        text.append("\n")
    first, last = _date(picture.start, picture), _date(picture.end, picture)
    text.append(f"{'':<{label_width}} {first}{last:>{max(1, room - len(first))}}\n")
    for at, name in picture.marks:
        said, place = f"{name} {_date(at, picture)}", column(at)
        # On the left side if there is no room on the right.
        line = f"{'':<{place}}▲ {said}" if place + 2 + len(said) <= room else f"{said} ▲".rjust(place + 1)
        text.append(f"{'':<{label_width}} {line}\n")
    text.append("█ deployed, or sent  ░ held by clients that do not come back\n", style="dim")
    return text


_ROW, _LEFT, _WIDTH = 26, 220, 960
_COLOURS = {"key": "#2f9e44", "policy": "#1c7ed6"}


def svg(picture: Timeline) -> str:
    """The picture as a complete SVG document."""
    room = _WIDTH - _LEFT - 20
    span = picture.end - picture.start
    height = 40 + _ROW * (len(picture.bars) + len(picture.marks)) + 20

    def x(at: float) -> float:
        return round(_LEFT + (at - picture.start) / span * room, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="13">',
        f"<title>Rotation of {escape(picture.host)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-weight="bold">{escape(picture.host)}</text>',
        f'<text x="{_LEFT}" y="22" fill="#495057">full: deployed, or sent; '
        "pale: held by clients that do not come back</text>",
    ]
    for row, bar in enumerate(picture.bars):
        y = 36 + row * _ROW
        colour = _COLOURS[bar.kind]
        parts += [
            f'<text x="10" y="{y + 14}" font-family="monospace" font-size="12">{escape(bar.label)}</text>',
            # A bar has a minimum width, so that short events are visible.
            _rect(x(bar.start), max(x(bar.fades_at), x(bar.start) + 2), y, colour, 1.0),
            _rect(x(bar.fades_at), x(bar.end), y, colour, 0.3),
        ]
    bottom = 36 + len(picture.bars) * _ROW
    for row, (at, name) in enumerate(picture.marks):
        y = bottom + row * _ROW + 16
        beside, anchor = (-5, "end") if x(at) > _WIDTH - 200 else (5, "start")
        parts += [
            f'<line x1="{x(at)}" y1="30" x2="{x(at)}" y2="{y}" stroke="#495057" stroke-dasharray="3 3"/>',
            f'<text x="{x(at) + beside}" y="{y + 4}" text-anchor="{anchor}">{escape(name)} {_date(at, picture)}</text>',
        ]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _rect(start: float, end: float, y: int, colour: str, opacity: float) -> str:
    width = round(max(0.0, end - start), 1)
    return f'<rect x="{start}" y="{y}" width="{width}" height="18" fill="{colour}" fill-opacity="{opacity}"/>'
