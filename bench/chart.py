"""`python -m bench.chart`: draw CPU by process from `scale.json` into docs/scale.svg.

Each group of bars is one quantity that grows; a bar is the CPU of a request, by process, relative
to the largest bar of its group.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from bench.stack import THIS_CLONE

SCALE: Final = THIS_CLONE / "bench" / "scale.json"
CHART: Final = THIS_CLONE / "docs" / "scale.svg"
BAR_HEIGHT: Final = 18
BAR_WIDTH: Final = 420
LEFT: Final = 190
# By process, in the order of a request.
COLOURS: Final = {
    "envoy": "#7b6ca8",
    "authz": "#3a7ca5",
    "redis": "#c8553d",
    "postgres": "#4f772d",
    "meter": "#d9a441",
}
_NOT_LABELS: Final = ("per_second", "p50_ms", "p99_ms", "refused", "cpu_us", "settled_per_second")


def draw(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return the chart as SVG; quantities without CPU are left out."""
    parts: list[str] = []
    y = 28
    for number, (name, colour) in enumerate(COLOURS.items()):
        parts.append(_box(LEFT + number * 90, 6, 12, colour))
        parts.append(_text(LEFT + number * 90 + 16, 16, name))
    for quantity, points in rows.items():
        bars = [point for point in points if "cpu_us" in point]
        if not bars:
            continue
        most = max(_total(point) for point in bars)
        y += 22
        parts.append(_text(8, y, quantity.replace("_", " "), " font-weight='bold'"))
        for point in bars:
            y += BAR_HEIGHT + 4
            parts += _bar(point, y, most)
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{LEFT + BAR_WIDTH + 110}' "
        f"height='{y + 16}' font-family='sans-serif' font-size='12'>\n"
        f"<title>CPU of a request by process, microseconds</title>\n"
        f"<rect width='100%' height='100%' fill='white'/>\n{body}\n</svg>\n"
    )


def _bar(point: dict[str, Any], y: int, most: float) -> Sequence[str]:
    label = ", ".join(
        f"{value:,}" if isinstance(value, int) else str(value)
        for name, value in point.items()
        if name not in _NOT_LABELS
    )
    parts = [_text(24, y, label)]
    x: float = LEFT
    for name, colour in COLOURS.items():
        width = point["cpu_us"].get(name, 0) / most * BAR_WIDTH
        parts.append(_box(x, y - 12, width, colour, BAR_HEIGHT - 2))
        x += width
    return [*parts, _text(x + 6, y, f"{_total(point):,.0f} us")]


def _total(point: dict[str, Any]) -> float:
    return float(sum(point["cpu_us"].get(name, 0) for name in COLOURS))


def _box(x: float, y: float, width: float, colour: str, height: float = 12) -> str:
    return f"<rect x='{x:.1f}' y='{y}' width='{width:.1f}' height='{height}' fill='{colour}'/>"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y}'{more}>{text}</text>"


def main() -> int:
    """Draw the rows of the last measurement."""
    CHART.write_text(draw(json.loads(SCALE.read_text())))
    print(f"The chart is in {CHART}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
