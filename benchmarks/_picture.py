"""Pictures: bars of operations per second, as SVG written by hand.

A picture has panels, a panel groups, a group a bar for each series. The scale is logarithmic where
the fastest may be some hundred times as fast as the slowest; every bar also says its figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = {
    "kvtwist": "#c2410c",
    "kvtwist-many": "#fb923c",
    "amp": "#475569",
    "go": "#0284c7",
    "redis": "#15803d",
    "redis-pipelined": "#86c79b",
    "etcd": "#0284c7",
    "etcd-leader": "#7dd3fc",
    "pysyncobj": "#334155",
    "pysyncobj-fast": "#64748b",
    "pysyncobj-synced": "#a8b3c2",
    "1": "#fdba74",
    "3": "#c2410c",
    "5": "#7c2d12",
}
_INK, _FAINT, _PAPER = "#1f2937", "#e2e8f0", "#ffffff"

_PANEL_WIDTH, _PANEL_HEIGHT = 540, 220
_LEFT, _TOP, _GAP_X, _GAP_Y, _BOTTOM = 64, 112, 56, 66, 16
_GROUP_PADDING = 12
_PANELS_BESIDE = 2
_HEADROOM = 1.8
"""The top of a logarithmic axis over the largest value."""
_LINEAR_HEADROOM = 1.15
_TICKS_MAX = 6


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a picture.

    :ivar groups: what stands below each group of bars, and the values of its series: above 0, or
        none where there is no figure.
    """

    title: str
    groups: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis upwards.

    :ivar low: exponent of ten of the bottom, a whole number.
    :ivar high: exponent of ten of the top.
    """

    low: int
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> Scale:
        """The axis that has room for all *values* and for a figure above the largest."""
        low = math.floor(math.log10(min(values, default=1_000)))
        return cls(low, math.log10(max(values, default=10_000) * _HEADROOM))

    def height(self, value: float) -> float:
        """How far above the bottom *value* is, in pixels."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return max(0.0, share) * _PANEL_HEIGHT

    @property
    def ticks(self) -> list[int]:
        """The powers of ten on it."""
        return [10**exponent for exponent in range(self.low, math.floor(self.high) + 1)]


@dataclass(frozen=True, slots=True)
class LinearScale:
    """A linear axis upwards, from 0 to *high*."""

    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> LinearScale:
        """The axis that has room for all *values* and for a figure above the largest."""
        return cls(max(values, default=10_000) * _LINEAR_HEADROOM)

    def height(self, value: float) -> float:
        """How far above the bottom *value* is, in pixels."""
        return value / self.high * _PANEL_HEIGHT

    @property
    def ticks(self) -> list[int]:
        """Some round numbers on it: 1, 2 or 5 times a power of ten apart."""
        power = 10 ** math.floor(math.log10(self.high))
        steps = (power / 5, power / 2, power, 2 * power)
        step = next(each for each in steps if self.high / each <= _TICKS_MAX)
        return [int(number * step) for number in range(int(self.high / step) + 1)]


def draw(
    title: str,
    subtitle: str,
    titles: Mapping[str, str],
    panels: Sequence[Panel],
    footer: str,
    kind: type[Scale] | type[LinearScale] = Scale,
) -> str:
    """The whole picture, as an SVG document.

    :param titles: the series to show, and what to call them.
    :param footer: where and when it was measured.
    :param kind: the scale, which is the same in all panels.
    """
    values = [
        value
        for panel in panels
        for group in panel.groups.values()
        for name in titles
        if (value := group.get(name))
    ]
    scale = kind.around(values)
    rows = math.ceil(len(panels) / _PANELS_BESIDE)
    width = _LEFT + _PANELS_BESIDE * (_PANEL_WIDTH + _GAP_X)
    height = _TOP + rows * (_PANEL_HEIGHT + _GAP_Y) + _BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif"'
            f' font-size="12" fill="{_INK}" role="img" aria-label="{title}">',
            f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
            _text(_LEFT, 32, title, size=20, weight="bold"),
            _text(_LEFT, 52, subtitle, size=13),
            *_legend(titles),
            *(
                line
                for number, panel in enumerate(panels)
                for line in _panel(_origin(number), panel, list(titles), scale)
            ),
            _text(_LEFT, height - 16, footer, size=11),
            "</svg>",
            "",
        ]
    )


def _origin(number: int) -> tuple[int, int]:
    row, column = divmod(number, _PANELS_BESIDE)
    return _LEFT + column * (_PANEL_WIDTH + _GAP_X), _TOP + row * (_PANEL_HEIGHT + _GAP_Y)


def _legend(titles: Mapping[str, str]) -> Iterator[str]:
    for index, (name, title) in enumerate(titles.items()):
        x = _LEFT + index * 170
        yield f'<rect x="{x}" y="66" width="12" height="12" fill="{_COLOURS[name]}"/>'
        yield _text(x + 18, 76, title)


def _panel(
    origin: tuple[int, int], panel: Panel, names: Sequence[str], scale: Scale | LinearScale
) -> Iterator[str]:
    left, top = origin
    bottom = top + _PANEL_HEIGHT
    yield _text(left, top - 8, panel.title, size=14, weight="bold")
    for tick in scale.ticks:
        y = bottom - scale.height(tick)
        yield f'<path d="M{left} {y:.1f}h{_PANEL_WIDTH}" stroke="{_FAINT}"/>'
        yield _text(left - 8, y + 4, _short(tick), anchor="end")
    group_width = _PANEL_WIDTH / len(panel.groups)
    bar_width = (group_width - 2 * _GROUP_PADDING) / len(names)
    for at, (label, values) in enumerate(panel.groups.items()):
        start = left + at * group_width + _GROUP_PADDING
        for index, name in enumerate(names):
            if value := values.get(name):
                x = start + index * bar_width
                yield from _bar(name, x, bottom, bar_width, scale.height(value), value)
        middle = left + (at + 0.5) * group_width
        yield _text(middle, bottom + 18, label, anchor="middle")
    yield f'<path d="M{left} {bottom}h{_PANEL_WIDTH}" stroke="{_INK}"/>'


def _bar(
    name: str, x: float, bottom: float, width: float, height: float, value: float
) -> Iterator[str]:
    yield (
        f'<rect x="{x + 1:.1f}" y="{bottom - height:.1f}" width="{width - 2:.1f}"'
        f' height="{height:.1f}" fill="{_COLOURS[name]}"><title>{value:,.0f} op/s</title></rect>'
    )
    weight = "bold" if name == "kvtwist" else "normal"
    middle, above = x + width / 2, bottom - height - 4
    yield _text(middle, above, _short(value), size=9, anchor="middle", weight=weight)


def _short(value: float) -> str:
    """1234 as 1.2k, 56789 as 57k."""
    for unit, sign in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            scaled = value / unit
            return f"{scaled:.1f}{sign}".replace(".0", "") if scaled < 10 else f"{scaled:.0f}{sign}"
    return f"{value:.0f}"


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{escape(text)}</text>'
    )
