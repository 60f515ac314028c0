"""What a dashboard is made of here, in the types of Grafana's own SDK: rows of panels that ask Prometheus.

A panel says what it shows in a sentence, its unit, and from which value on somebody should look. One that an alert
names is linked with that alert's runbook. Ids are given in order, so a dashboard that is made again is the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from deploy.prometheus.alerts import ALERTS
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, text, timeseries
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models.text import TextMode

RUNBOOKS = "nearkin-runbooks"

#: The data source that the person who looks has chosen; the one that is provisioned, at first.
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

TAG = "nearkin"

EACH = "$__rate_interval"


class Unit(Enum):
    """What an axis counts, as Grafana calls it."""

    SECONDS = units.Seconds
    SHARE = units.PercentUnit
    PER_SECOND = units.CountsPerSecond
    COUNT = units.Short
    BYTES = units.BytesIEC
    TIMES = "suffix: ×"
    NONE = units.NoUnit


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: what Prometheus evaluates.
        legend: how each series is called.
    """

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: its title; one of its kind in a dashboard.
        description: what it shows, and what is normal.
        unit: of its values.
        queries: what it asks.
        attention: from which value on somebody should look.
        alarm: from which value on an alert fires.
        least: whether values below these are bad, rather than those above.
        kind: lines over time, the last values in large figures, or up and down over time.
        width: of the 24 columns.
    """

    title: str
    description: str
    unit: Unit
    queries: Sequence[Query]
    attention: float | None = None
    alarm: float | None = None
    least: bool = False
    kind: Literal["lines", "figures", "up"] = "lines"
    width: int = 12


@dataclass(frozen=True, slots=True)
class Variable:
    """What a person may choose: values of a label, all at first.

    Attributes:
        label: whose values; the variable has its name.
        of: the series whose labels are read.
        title: how it is called on the page.
    """

    label: str
    of: str
    title: str


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes:
        uid: its address in Grafana, and the name of its file.
        title: its title.
        description: what it is for.
        variables: what a person may choose.
        rows: panels under their headings.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[tuple[str, Sequence[Panel]]]
    texts: Sequence[tuple[str, str]] = field(default=())

    def panel_ids(self) -> dict[str, int]:
        """The ids of its panels by title; headings of rows have ids too."""
        ids = {}
        number = 0
        for _, panels in self.rows:
            number += 1
            for panel in panels:
                number += 1
                ids[panel.title] = number
        for title, _ in self.texts:
            number += 1
            ids[title] = number
        return ids


def build(board: Board, runbook_ids: dict[str, int]) -> dashboard.Dashboard:
    """A dashboard as Grafana knows it.

    Args:
        board: what it shows.
        runbook_ids: of the panels that hold the runbooks, by alert.
    """
    made = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .link(
            builders.DashboardLink("Nearkin")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    if board.rows:
        made.with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in board.variables:
        made.with_variable(_variable(variable))
    ids = board.panel_ids()
    for number, (title, panels) in enumerate(board.rows):
        before = number + sum(len(those) for _, those in board.rows[:number])
        made.with_row(builders.Row(title).id(before + 1))
        for panel in panels:
            links = _runbooks(board.uid, panel.title, runbook_ids)
            made.with_panel(_panel(panel, ids[panel.title], links))
    for title, content in board.texts:
        made.with_panel(
            text.Panel().id(ids[title]).title(title).mode(TextMode.MARKDOWN).content(content).span(12).height(9)
        )
    return made.build()


def _variable(variable: Variable) -> builders.QueryVariable:
    return (
        builders.QueryVariable(variable.label)
        .label(variable.title)
        .datasource(SOURCE)
        .query({"query": f"label_values({variable.of}, {variable.label})", "refId": "A"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def _runbooks(uid: str, title: str, runbook_ids: dict[str, int]) -> list[builders.DashboardLink]:
    return [
        builders.DashboardLink(f"Runbook: {alert.name}")
        .type(dashboard.DashboardLinkType.LINK)
        .url(runbook_path(alert.name, runbook_ids))
        for alert in ALERTS
        if (alert.dashboard, alert.panel) == (uid, title)
    ]


def runbook_path(alert: str, runbook_ids: dict[str, int]) -> str:
    """Grafana's path of an alert's runbook."""
    return f"/d/{RUNBOOKS}?viewPanel={runbook_ids[alert]}"


def _thresholds(panel: Panel) -> builders.ThresholdsConfig:
    """The steps between good, worth a look, and alarming; whatever is not said has no step."""
    above = [(panel.attention, "orange"), (panel.alarm, "red")]
    steps = [dashboard.Threshold(None, "green")]
    if panel.least:
        steps = [dashboard.Threshold(None, "red")]
        above = [(panel.alarm, "orange"), (panel.attention, "green")]
        if panel.attention is None:
            above = [(panel.alarm, "green")]
    steps += [dashboard.Threshold(value, colour) for value, colour in above if value is not None]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _panel(panel: Panel, number: int, links: Sequence[builders.DashboardLink]) -> Any:
    legend = (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    made: Any
    match panel.kind:
        case "figures":
            made = (
                stat.Panel()
                .color_mode(common.BigValueColorMode.VALUE)
                .graph_mode(common.BigValueGraphMode.AREA)
                .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
            )
        case "up":
            made = (
                statetimeline.Panel()
                .merge_values(True)
                .fill_opacity(70)
                .line_width(0)
                .show_value(common.VisibilityMode.NEVER)
                .mappings(_UP_AND_DOWN)
            )
        case "lines":
            made = timeseries.Panel().legend(legend).fill_opacity(8).show_points(common.VisibilityMode.AUTO)
            if panel.attention is not None or panel.alarm is not None:
                style = common.GraphThresholdsStyleMode.DASHED
                made.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
            if not panel.least:
                made.min(0)
    made.id(number).title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit.value)
    made.thresholds(_thresholds(panel)).span(panel.width).height(5 if panel.kind == "figures" else 8)
    if links:
        made.links(list(links))
    for name, query in zip("ABCDEFGH", panel.queries, strict=False):
        made.with_target(
            prometheus.Dataquery().ref_id(name).expr(query.expr).legend_format(query.legend).range().datasource(SOURCE)
        )
    return made


_UP_AND_DOWN: list[Any] = [
    dashboard.ValueMap(
        options={
            "0": dashboard.ValueMappingResult(text="down", color="red", index=0),
            "1": dashboard.ValueMappingResult(text="up", color="green", index=1),
        }
    )
]


def percentiles(histogram: str, where: str = "", by: str = "", of: Iterable[float] = (0.5, 0.99)) -> list[Query]:
    """Queries for percentiles of a histogram.

    Args:
        histogram: its name, without a suffix.
        where: which series.
        by: the label by which they are told apart.
        of: which percentiles.
    """
    grouped, named = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return [
        Query(
            f"histogram_quantile({share:g}, sum by ({grouped}) (rate({histogram}_bucket{{{where}}}[{EACH}])))",
            f"{named}p{100 * share:g}",
        )
        for share in of
    ]


def rate(counter: str, where: str = "", by: str = "", legend: str = "") -> Query:
    """A query for how often something happens.

    Args:
        counter: its name.
        where: which series.
        by: the labels by which they are told apart.
        legend: how each is called; by its labels where nothing is said.
    """
    labels = [label.strip() for label in by.split(",") if label.strip()]
    summed = f"sum by ({by})" if labels else "sum"
    return Query(
        f"{summed} (rate({counter}{{{where}}}[{EACH}]))",
        legend or " ".join(f"{{{{{label}}}}}" for label in labels) or "all",
    )
