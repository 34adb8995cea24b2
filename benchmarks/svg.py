"""Charts as SVG: horizontal bars, one for each peer, with the middle half of the runs as a whisker. No dependency."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from benchmarks.figures import Summary, summary
from benchmarks.report import attribute
from benchmarks.runner import Result

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP, _TOP = 680, 96, 150, 20, 10, 54
_COLOURS: Final = {
    "gateway": "#2b6cb0",
    "raw": "#718096",
    "node": "#68a063",
    "python": "#d9a520",
    "bun-proxy": "#c05621",
    "fastify": "#2f855a",
}
_LEGEND: Final = "medians; the whisker spans the middle half of the runs"
# File name's end, title, figure, unit.
_CHARTS: Final = (
    ("throughput", "operations per second", "per_second", ""),
    ("latency", "latency, 99th percentile", "p99_ms", "ms"),
    ("cpu", "processor time of the proxy per operation", "proxy_us", "µs"),
    ("memory", "memory per connection", "kib_per_connection", "KiB"),
)


def write_charts(results: list[Result], directory: Path) -> list[Path]:
    """Write a chart for each scenario and figure that at least one peer has."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for result in results:
        for name, title, figure, unit in _CHARTS:
            bars = _bars(result, figure)
            if bars:
                path = directory / f"{result.scenario.name}-{name}.svg"
                path.write_text(chart(f"{result.scenario.name}: {title}", bars, unit, dict(result.absent)))
                written.append(path)
    return written


def chart(title: str, bars: dict[str, Summary], unit: str, absent: dict[str, str]) -> str:
    """One chart as SVG text.

    Args:
        title: above it.
        bars: by peer, from top to bottom.
        unit: behind the numbers; may be empty.
        absent: peers without a bar, and why; those that do not apply are not shown.
    """
    gone = {peer: reason for peer, reason in absent.items() if reason.startswith("missing")}
    height = _TOP + (len(bars) + len(gone)) * (_BAR + _GAP) + 6
    longest = max(max(bar.high, bar.median) for bar in bars.values()) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="26" font-size="15" font-weight="600" fill="#1a202c">{escape(title)}</text>',
        f'<text x="12" y="44" font-size="11" fill="#718096">{_LEGEND}</text>',
    ]
    y = _TOP
    for peer, bar in bars.items():
        parts += _bar(peer, bar, unit, y, scale)
        y += _BAR + _GAP
    for peer, reason in gone.items():
        parts.append(_label(peer, y) + _text(_LEFT, y, reason, "#a0aec0"))
        y += _BAR + _GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(peer: str, bar: Summary, unit: str, y: int, scale: float) -> list[str]:
    width, middle = max(1.0, bar.median * scale), y + _BAR / 2
    low, high = _LEFT + bar.low * scale, _LEFT + bar.high * scale
    end = max(_LEFT + width, high) + 8
    colour = _COLOURS.get(peer, "#4a5568")
    return [
        _label(peer, y),
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"'
        ' stroke="#1a202c" fill="none"/>',
        _text(end, y, f"{_number(bar.median)} {unit}".strip(), "#1a202c"),
    ]


def _label(peer: str, y: int) -> str:
    return f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end" fill="#1a202c">{escape(peer)}</text>'


def _text(x: float, y: int, words: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y + 15}" fill="{colour}">{escape(words)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bars(result: Result, figure: str) -> dict[str, Summary]:
    found = {peer: summary(attribute(figure)(run) for run in runs if run) for peer, runs in result.runs.items()}
    return {peer: bar for peer, bar in found.items() if bar is not None}
