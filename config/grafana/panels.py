"""Panels and dashboards: one look for all of them. Widths are of a grid of 24."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as styles
from grafana_foundation_sdk.models import dashboard as model

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

WIDE: Final = 24
HEIGHTS: Final = {"stat": 4, "timeseries": 8, "bargauge": 8}

Steps = Sequence[tuple[float, str]]
"""From which value on which colour holds; below the first it is green, unless a panel says otherwise."""

Builder = timeseries.Panel | stat.Panel | bargauge.Panel


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called: `{{label}}` stands for a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: Sequence[Builder]


@dataclass(frozen=True)
class Choice:
    """A variable: one chooses from the values of a label."""

    label: str
    metric: str
    title: str


WORKERS: Final = Choice("worker", "gaia_worker_info", "Worker")


@dataclass(frozen=True)
class Board:
    """A dashboard; it lies in a file of its uid."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = field(default=(WORKERS,))


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    steps: Steps = (),
    most: float | None = None,
    width: int = 8,
) -> timeseries.Panel:
    """Draw lines over time; `stacked` where they are parts of a whole."""
    legend = common.VizLegendOptions().display_mode(styles.LegendDisplayMode.LIST).show_legend(True)  # noqa: FBT003 - the SDK's
    panel = (
        timeseries.Panel()
        .line_width(1.5)
        .fill_opacity(25 if stacked else 8)
        .show_points(styles.VisibilityMode.NEVER)
        .span_nulls(False)  # noqa: FBT003 - the SDK's
        .min(0)
        .legend(legend.placement(styles.LegendPlacement.BOTTOM).calcs([]))
        .tooltip(common.VizTooltipOptions().mode(styles.TooltipDisplayMode.MULTI).sort(styles.SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(styles.StackingMode.NORMAL).group("A"))
    if most is not None:
        panel.max(most)
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(styles.GraphTresholdsStyleMode.DASHED))
    _dress(panel, title, description, unit, steps, width)
    return panel.targets([_target(number, each) for number, each in enumerate(queries)])


def figure(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    steps: Steps = (),
    below: str = "green",
    width: int = 4,
) -> stat.Panel:
    """Show one number, and how it came there."""
    panel = (
        stat.Panel()
        .graph_mode(styles.BigValueGraphMode.AREA)
        .color_mode(styles.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("nothing yet")
    )
    _dress(panel, title, description, unit, steps, width, below)
    return panel.targets([_target(0, Query(expr, title))])


def bars(
    title: str, description: str, unit: str, expr: str, legend: str, *, steps: Steps = (), width: int = 8
) -> bargauge.Panel:
    """Compare what is now, one bar a series."""
    panel = (
        bargauge.Panel()
        .orientation(styles.VizOrientation.HORIZONTAL)
        .display_mode(styles.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .min(0)
        .no_value("nothing yet")
    )
    _dress(panel, title, description, unit, steps, width)
    return panel.targets([_target(0, Query(expr, legend), instant=True)])


def _dress(
    panel: Builder, title: str, description: str, unit: str, steps: Steps, width: int, below: str = "green"
) -> None:
    colours = [model.Threshold(None, below), *(model.Threshold(value, colour) for value, colour in steps)]
    thresholds = build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(colours)
    panel.title(title).description(description).unit(unit).datasource(SOURCE).thresholds(thresholds)
    panel.span(width)


def _target(number: int, query: Query, *, instant: bool = False) -> prometheus.Dataquery:
    found = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).legend_format(query.legend)
    found.datasource(SOURCE)
    return found.instant() if instant else found.range()


def dashboard(board: Board) -> model.Dashboard:
    """Make what Grafana reads: rows one below the other, panels side by side as long as they fit."""
    found = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["gaia"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(build.DashboardLink("Gaia").type(model.DashboardLinkType.DASHBOARDS).tags(["gaia"]).as_dropdown(True))  # noqa: FBT003 - the SDK's
        .with_variable(build.DatasourceVariable("datasource").label("Source").type("prometheus"))
    )
    for each in board.choices:
        found.with_variable(_variable(each))
    made = found.build()
    made.panels = _placed(board.rows)
    return made


def _variable(choice: Choice) -> build.QueryVariable:
    return (
        build.QueryVariable(choice.label)
        .label(choice.title)
        .query(f"label_values({choice.metric}, {choice.label})")
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)  # noqa: FBT003 - the SDK's
        .include_all(True)  # noqa: FBT003 - the SDK's
        .all_value(".+")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _placed(rows: Sequence[Row]) -> list[model.Panel | model.RowPanel]:
    found: list[model.Panel | model.RowPanel] = []
    y = 0
    for row in rows:
        heading = build.Row(row.title).grid_pos(model.GridPos(h=1, w=WIDE, x=0, y=y)).id(len(found) + 1).build()
        found.append(heading)
        x, y, height = 0, y + 1, 0
        for each in row.panels:
            panel = each.build()
            tall, wide = HEIGHTS[panel.type_val], 0 if panel.grid_pos is None else panel.grid_pos.w
            if x + wide > WIDE:
                x, y, height = 0, y + height, 0
            panel.id_val, panel.grid_pos = len(found) + 1, model.GridPos(h=tall, w=wide, x=x, y=y)
            found.append(panel)
            x, height = x + wide, max(height, tall)
        y += height
    return found
