"""Would it survive a sceptic? Overlap, balance, refuters, negative controls, sensitivity."""

from causalrec.check.checks import Checks, refute
from causalrec.check.dowhy_bridge import DowhyView, to_dowhy
from causalrec.check.group_sensitivity import GroupSensitivity, group_sensitivity
from causalrec.check.refuters import CheckRecord
from causalrec.check.sensitivity import Sensitivity

__all__ = [
    "CheckRecord",
    "Checks",
    "DowhyView",
    "GroupSensitivity",
    "Sensitivity",
    "group_sensitivity",
    "refute",
    "to_dowhy",
]
