"""Show it to me: figures of results, and one page that says what they mean."""

from causalrec.report.arms_plots import plot_arms, plot_dose_response, plot_instrument
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
from causalrec.report.training_plots import (
    plot_epochs,
    plot_examination,
    plot_objectives,
    plot_policy_share,
    plot_ranker_value,
    plot_risks,
)
from causalrec.report.uplift_plots import (
    plot_breakdown,
    plot_calibration,
    plot_cold_start,
    plot_explanation,
    plot_fairness,
    plot_models,
    plot_targeting,
)
from causalrec.report.words import Question

__all__ = [
    "Question",
    "Report",
    "plot_arms",
    "plot_balance",
    "plot_breakdown",
    "plot_calibration",
    "plot_cold_start",
    "plot_deciles",
    "plot_dose_response",
    "plot_effect",
    "plot_epochs",
    "plot_examination",
    "plot_explanation",
    "plot_fairness",
    "plot_graph",
    "plot_groups",
    "plot_instrument",
    "plot_models",
    "plot_objectives",
    "plot_overlap",
    "plot_placebo",
    "plot_policy_share",
    "plot_ranker_value",
    "plot_risks",
    "plot_targeting",
    "plot_uplift",
    "question_of",
    "report",
]
