"""Show it to me: figures of results, and one page that says what they mean."""

from causalrec.report.forest import plot_effect, plot_groups
from causalrec.report.graph import plot_graph
from causalrec.report.html import Report, report
from causalrec.report.plots import (
    plot_balance,
    plot_deciles,
    plot_overlap,
    plot_placebo,
    plot_uplift,
)
from causalrec.report.results import question_of
from causalrec.report.words import Question

__all__ = [
    "Question",
    "Report",
    "plot_balance",
    "plot_deciles",
    "plot_effect",
    "plot_graph",
    "plot_groups",
    "plot_overlap",
    "plot_placebo",
    "plot_uplift",
    "question_of",
    "report",
]
