"""Growth curves as SVG: seconds and peak memory along one quantity. Told apart by colour and dash."""

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from contenders import CONTENDERS

AXES = {
    "sessions": ("Sessions", "log"),
    "days": ("Days", "log"),
    "latency": ("Milliseconds a page", "linear"),
    "in_flight": ("Requests in flight", "log"),
}
FIGURES = {"wall_seconds": "Seconds, whole process", "peak_megabytes": "Peak memory, MB"}
Points = list[tuple[dict[str, Any], dict[str, dict[str, Any]]]]


def frame(along: str, points: Points) -> pd.DataFrame:
    """One row per point and contender."""
    return pd.DataFrame(
        [
            {
                "along": setting[along] * (1000 if along == "latency" else 1),
                "contender": CONTENDERS[name].label,
                **{figure: row[figure] for figure in (*FIGURES, "requests")},
            }
            for setting, found in points
            for name, row in found.items()
        ]
    )


def growth(along: str, points: Points, file: Path) -> None:
    """Draw one curve's picture."""
    title, scale = AXES[along]
    data = alt.Chart(frame(along, points)).mark_line(point=True)
    charts = [
        data.encode(
            x=alt.X("along:Q", title=title, scale=alt.Scale(type=scale, nice=False)),
            y=alt.Y(f"{figure}:Q", title=name, scale=alt.Scale(zero=True)),
            color=alt.Color("contender:N", title=None),
            strokeDash=alt.StrokeDash("contender:N", title=None),
        ).properties(width=320, height=220)
        for figure, name in FIGURES.items()
    ]
    chart = alt.hconcat(*charts).configure(background="white").configure_legend(orient="bottom")
    file.write_text(vl_convert.vegalite_to_svg(chart.to_dict()))


def as_text(along: str, points: Points) -> str:
    """The same numbers as a Markdown table."""
    rows = frame(along, points)
    head = [AXES[along][0], "", "wall, s", "peak, MB", "requests"]
    lines = [head, ["--:", "---", "--:", "--:", "--:"]]
    for row in rows.itertuples():
        figures = (f"{row.wall_seconds:.2f}", f"{row.peak_megabytes:.0f}", f"{row.requests:.0f}")
        lines.append([f"{row.along:,.0f}", str(row.contender), *figures])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
