from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalrec.report import words
from causalrec.report.words import Question

CLICKS = words.question("recommended", "clicked")
SPEND = words.question("mail", "spend", binary=False)
MENS = words.question("segment", "visit", level="Mens E-Mail")


@pytest.mark.parametrize(
    ("question", "doing", "label"),
    [
        (CLICKS, "Recommending", "clicks per 1,000 impressions"),
        (words.question("Recommended", "click", level=True), "Recommending", "clicks per 1,000 impressions"),
        (
            words.question("recommended", "clicked", level="yes"),
            "‘recommended’ = ‘yes’",
            "clicks per 1,000 impressions",
        ),
        (SPEND, "Treatment (‘mail’)", "‘spend’ per impression"),
        (MENS, "‘segment’ = ‘Mens E-Mail’", "‘visit’ per 1,000 impressions"),
        (words.question("recommended", "clicks", binary=False), "Recommending", "‘clicks’ per impression"),
    ],
)
def test_question(question: Question, doing: str, label: str) -> None:
    assert (question.doing, question.label) == (doing, label)


@pytest.mark.parametrize(
    ("question", "effect", "more", "sentence"),
    [
        (CLICKS, (0.0213, 0.0151, 0.0275), {"clustered_by": "user_id"},
         "Recommending raised clicks by 21.3 per 1,000 impressions (95 % interval 15.1 to 27.5, clustered by user_id)."),
        (CLICKS, (-0.0213, -0.0275, -0.0151), {"clustered_by": "user_id"},
         "Recommending lowered clicks by 21.3 per 1,000 impressions (95 % interval −27.5 to −15.1, clustered by user_id)."),
        (CLICKS, (0.0021, -0.003, 0.0072), {},
         "The data do not tell whether recommending changed clicks: the estimate is +2.1 per 1,000 impressions, and its interval includes "
         "no effect (95 % interval −3.0 to 7.2, each row taken for independent)."),
        (MENS, (0.0766, 0.07, 0.0832), {"estimand": "ATT"},
         "‘segment’ = ‘Mens E-Mail’ raised ‘visit’ by 76.6 per 1,000 impressions among the impressions that were treated "
         "(95 % interval 70.0 to 83.2, each row taken for independent)."),
        (SPEND, (0.52, 0.21, 0.83), {"estimand": "ATO"},
         "Treatment (‘mail’) raised ‘spend’ by 0.52 per impression among the impressions that could have gone either way "
         "(95 % interval 0.21 to 0.83, each row taken for independent)."),
        (SPEND, (1234.5, 1000.0, 1469.0), {},
         "Treatment (‘mail’) raised ‘spend’ by 1,234 per impression (95 % interval 1,000 to 1,469, each row taken for independent)."),
    ],
)  # fmt: skip
def test_effect_sentence(
    question: Question, effect: tuple[float, float, float], more: dict, sentence: str
) -> None:
    assert words.effect_sentence(question, *effect, **more) == sentence


@pytest.mark.parametrize(
    ("naive", "effect", "sentence"),
    [
        (
            (0.063, 0.055, 0.071),
            (0.0213, 0.0151, 0.0275),
            "says 63.0: by this estimate 66 % of it is not caused by the recommendation.",
        ),
        ((0.022, 0.015, 0.029), (0.0213, 0.0151, 0.0275), "says 22.0, about the same."),
        ((0.010, 0.004, 0.016), (0.0400, 0.0300, 0.0500), "says 10.0: it hides 75 % of the effect."),
        (
            (-0.050, -0.060, -0.040),
            (0.040, 0.030, 0.050),
            "says −50: it does not even have the sign of the effect.",
        ),
        ((0.063, 0.055, 0.071), (0.0020, -0.0040, 0.0080), "says 63.0, which lies above that interval."),
        ((-0.063, -0.071, -0.055), (0.0020, -0.0040, 0.0080), "says −63.0, which lies below that interval."),
        ((0.007, 0.004, 0.0100), (0.0020, -0.0040, 0.0080), "says 7.0, which lies inside that interval."),
        ((0.002, -0.001, 0.0050), (0.0020, -0.0040, 0.0080), "says 2.0, which tells no more."),
        (
            (-0.06, -0.07, -0.05),
            (-0.03, -0.04, -0.02),
            "says −60: by this estimate 50 % of it is not caused by the recommendation.",
        ),
    ],
)
def test_naive_sentence(naive: tuple, effect: tuple, sentence: str) -> None:
    assert words.naive_sentence(CLICKS, naive, effect) == f"The naive comparison {sentence}"


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (None, ""),
        (
            (0.5, 0.42, 0.58),
            "Of the clicks of treated impressions, 50 % would have happened anyway (95 % interval 42 to 58 %).",
        ),
        (
            (0.873, 0.868, 0.878),
            "Of the clicks of treated impressions, 87.3 % would have happened anyway (95 % interval 86.8 to 87.8 %).",
        ),
        (
            (1.05, 0.9, 1.2),
            "Untreated, the treated impressions would have had 105 % of their clicks (95 % interval 90 to 120 %).",
        ),
        (
            (-0.1, -0.3, 0.1),
            "Untreated, the treated impressions would have had −10 % of their clicks (95 % interval −30 to 10 %); below 0 % reads as none.",
        ),
    ],
)
def test_anyway_sentence(share: tuple | None, sentence: str) -> None:
    assert words.anyway_sentence(CLICKS, share) == sentence


@pytest.mark.parametrize(
    ("passed", "sentence"),
    [
        ([], "No check gave a verdict."),
        ([True, True], "All 2 checks with a verdict passed."),
        ([True, None], "The only check with a verdict passed. 1 more is for information."),
        ([True, False, None, None], "1 of 2 checks with a verdict failed. 2 more are for information."),
    ],
)
def test_checks_sentence(passed: list, sentence: str) -> None:
    assert words.checks_sentence(passed) == sentence


def test_failed_checks_come_before_the_effect() -> None:
    assert words.caution_sentence([], 9) == ""
    assert words.caution_sentence(["overlap", "placebo"], 9) == (
        "The data do not support a conclusion yet: 2 of 9 checks failed (overlap and placebo). At face value:"
    )


def test_sensitivity_sentences() -> None:
    strong = words.sensitivity_sentence(0.119, 0.097, significant=True)
    assert "explain 11.9 % of what is left" in strong
    assert "9.7 % of each would make the interval include 0." in strong
    weak = words.sensitivity_sentence(0.02, 0.0, significant=False)
    assert weak.endswith("The interval includes 0 already, without any hidden cause.")
    assert words.e_value_sentence(None, None) == ""
    assert "outcome by 3.17 to explain the effect away, and 2.80 to" in words.e_value_sentence(3.17, 2.8)
    assert words.benchmark_sentence(CLICKS, "title", 0.03, 0.02).endswith(
        "up to 30 per 1,000 impressions: enough to undo the estimate."
    )
    assert words.benchmark_sentence(CLICKS, "title", -0.01, 0.02).endswith(
        ": not enough to undo the estimate."
    )


@pytest.mark.parametrize(
    ("qini", "start"),
    [
        ((0.014, 0.004, 0.024), "On held-out users, treating the best-ranked first brings more than"),
        ((-0.014, -0.024, -0.004), "On held-out users, treating the best-ranked first brings less than"),
        ((0.002, -0.004, 0.008), "The data do not tell whether"),
    ],
)
def test_ranking_sentence(qini: tuple, start: str) -> None:
    assert words.ranking_sentence(CLICKS, *qini).startswith(start)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1234.56, 1, "1,234.6"),
        (-0.04, 1, "0.0"),
        (-2.5, 1, "−2.5"),
        (None, 1, "–"),
        (math.nan, 1, "–"),
        (math.inf, 0, "–"),
    ],
)
def test_number(value: float | None, digits: int, text: str) -> None:
    assert words.number(value, digits) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-5, 1e6))
def test_an_interval_is_shown_to_within_a_tenth_of_its_half_width(centre: float, half: float) -> None:
    d = words.decimals(centre - half, centre + half)
    assert 0 <= d <= 6
    assert abs(round(centre, d) - centre) <= max(0.06 * half, 0.5000001e-6) or d == 0


@given(st.text(max_size=400))
def test_names_become_one_printable_line(name: str) -> None:
    line = words.shown(name)
    assert len(line) <= words.LONGEST_NAME
    assert line == " ".join(line.split())
    assert all(ord(c) >= 32 for c in line)
    assert words.shown(line) == line


def test_listed() -> None:
    assert words.listed([]) == ""
    assert words.listed(["a"]) == "a"
    assert words.listed(list("abc")) == "a, b and c"
    assert words.listed(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"
