"""For whom does it work, and whom should we target? Curves on held-out users."""

from causalrec.uplift.curve import UpliftCurve, uplift

__all__ = ["UpliftCurve", "uplift"]
