from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import causalrec as cr
from causalrec.check import CheckRecord
from causalrec.errors import ArgumentError, OutputError
from causalrec.report import Report, report

ORDER = ["data", "effect", "for-whom", "checks", "sensitivity", "assumptions", "reproducibility"]
VOID = {"meta", "br", "img", "link", "input", "hr"}


@pytest.fixture(scope="module")
def page(case) -> Report:
    return report(*case)


class Reader(HTMLParser):
    """Collects tags and complains when they do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for t, attrs in self.found if t == tag]


def kinds(page: Report, section: str) -> list[str]:
    return [p["kind"] for p in page.context["sections"][section]["parts"]]


def figures(page: Report) -> list[str]:
    return [p["name"] for s in page.context["sections"].values() for p in s["parts"] if p["kind"] == "figure"]


def test_every_section_in_order(page) -> None:
    assert list(page.context["sections"]) == ORDER
    assert figures(page) == [
        "graph",
        "effect",
        "uplift",
        "deciles",
        "calibration",
        "groups-0",
        "groups-1",
        "overlap",
        "balance",
        "placebo",
    ]
    assert all("missing" not in kinds(page, s) for s in ORDER)


def test_the_answer_comes_from_the_fit(page, case) -> None:
    answer, fit = page.context["answer"], case.fit
    assert f"by {1000 * fit.effect:.0f} per 1,000 impressions" in answer["headline"]
    assert answer["headline"].endswith("clustered by user_id and item_id).")
    assert answer["sentences"][0].startswith(f"The naive comparison says {1000 * fit.naive_effect:.0f}")
    assert f"{100 * fit.share_anyway[0]:.0f} % would have happened anyway" in answer["sentences"][1]
    numbers = page.to_frame().set_index("quantity")
    assert numbers.loc["effect, ATE", "estimate"] == fit.effect
    assert numbers.loc["Qini coefficient", "ci_lower"] == case.curve.qini_ci[0]
    assert answer["headline"] in page.summary()


def with_records(checks, *records):
    return replace(
        checks,
        records=tuple(CheckRecord(name, passed, 1.0, None, f"{name} says so") for name, passed in records),
    )


@pytest.mark.parametrize(
    ("records", "level", "start"),
    [
        ([("overlap", True), ("note", None)], "clear", "Recommending raised clicks"),
        ([("overlap", True), ("dummy_outcome", False)], "failed",
         "The data do not support a conclusion yet: 1 of 2 checks failed (dummy outcome). At face value: recommending raised"),
    ],
)  # fmt: skip
def test_failed_checks_speak_first(case, records, level, start) -> None:
    page = report(case.fit, with_records(case.checks, *records))
    answer = page.context["answer"]
    assert answer["level"] == level
    assert answer["headline"].startswith(start)
    if level == "failed":
        assert answer["caveats"][0] == "Failed: dummy outcome. dummy_outcome says so"
        assert '<span aria-hidden="true">✗</span> failed' in page.html()
        assert "The check “dummy outcome” failed." in page.html()


def test_an_interval_with_zero_makes_no_claim(fit_plain) -> None:
    fit = next(
        f for n in (150, 200, 250, 300) if (f := fit_plain(n, randomised=True)).ci_lower <= 0 <= f.ci_upper
    )
    answer = report(fit).context["answer"]
    assert answer["level"] == "unclear"
    assert answer["headline"].startswith("The data do not tell whether treatment (‘t’) changed ‘y’")


def test_what_was_not_computed_is_said_to_be_missing(fit_plain) -> None:
    page = report(fit_plain(modifiers=()), None)
    html = page.html()
    for line in (
        "No checks were run: <code>cr.refute(fit)</code>",
        "No sensitivity analysis was run: <code>cr.refute(fit)</code>",
        "No ranking was judged: <code>cr.uplift(fit_on_train, test)</code>",
        "No group effects: no modifier is declared.",
        "No checks were run, so nothing here has been tested.",
    ):
        assert line in html
    assert figures(page) == ["graph", "effect"]


def test_no_unit_is_said_everywhere(fit_plain) -> None:
    html = report(fit_plain(unit=None)).html()
    assert "no unit declared: each row counts as its own" in html
    assert "each row taken for independent" in html
    assert "no unit is declared, so the interval takes each row for independent" in html


def test_other_estimands_and_outcomes(fit_plain) -> None:
    assert (
        "among the impressions that could have gone either way"
        in report(fit_plain(estimand="ato")).context["answer"]["headline"]
    )
    assert "‘y’ by 0.5" in report(fit_plain(binary=False)).context["answer"]["headline"]


def test_a_corrected_effect_stands_above_its_first_order(fit_plain) -> None:
    rows = next(
        p
        for p in report(fit_plain(item="item")).context["sections"]["effect"]["parts"]
        if p["kind"] == "table"
    )["rows"]
    assert [r[0] for r in rows] == [
        "naive difference (not an effect)",
        "effect, ATE",
        "effect, ATE, first order",
    ]


def test_balance_without_columns_is_a_sentence(case) -> None:
    page = report(case.fit, replace(case.checks, balance=()))
    assert "balance" not in figures(page)
    assert "the log has no column that the fit does not use" in page.html()


def test_a_constant_ranking_is_no_curve(case) -> None:
    page = report(case.fit, replace(case.curve, constant=True))
    assert "uplift" not in figures(page)
    assert "there is no ranking to judge" in page.html()


def test_one_file_with_nothing_from_elsewhere(page) -> None:
    html = page.html()
    reader = Reader(html)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    tags = {tag for tag, _ in reader.found}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form"})
    assert not [a for _, attrs in reader.found for a in attrs if a.startswith("on") or a == "src"]
    assert "default-src 'none'" in html
    assert len(html.encode()) < 1_000_000


def test_semantic_and_described(page) -> None:
    html = page.html()
    reader = Reader(html)
    levels = [tag for tag, _ in reader.found if re.fullmatch(r"h\d", tag)]
    assert levels.count("h1") == 1
    assert levels.count("h2") == 8
    assert levels[:2] == ["h1", "h2"]
    assert len(reader.all("table")) == len(reader.all("caption")) > 15
    assert all(th.get("scope") in ("col", "row") for th in reader.all("th"))
    assert len(reader.all("svg")) == len(reader.all("details")) == 10
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in reader.all("svg"))
    ids = [attrs["id"] for _, attrs in reader.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert reader.all("html") == [{"lang": "en"}]


def test_context_is_plain_data(page) -> None:
    assert json.loads(json.dumps(page.context)) == page.context


def test_hostile_names_are_only_text(hostile) -> None:
    page = report(*hostile, title="<script>alert(2)</script>")
    html = page.html()
    reader = Reader(html)
    assert {tag for tag, _ in reader.found}.isdisjoint({"script", "img", "b"})
    assert not [a for _, attrs in reader.found for a in attrs if a.startswith("on")]
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in html
    assert "&lt;b&gt;outcome&lt;/b&gt;" in html
    assert "\x1b" not in html
    assert "\x00" not in html
    assert Reader(page._repr_html_()).all("svg")


def test_many_labels_do_not_swell_the_page(fit_plain) -> None:
    small, large = (len(report(fit_plain(n)).html()) for n in (1_000, 10_000))
    assert abs(large - small) < 0.1 * small


def test_same_seed_same_bytes_in_another_process(fit_plain) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/report'); import conftest, hashlib, causalrec as cr;"
        "log = conftest.plain_log(600); fit = cr.estimate(log, cr.identify(log), random_state=0);"
        "print(hashlib.sha256(cr.report(fit).html().encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert there.stdout.strip() == hashlib.sha256(report(fit_plain(600)).html().encode()).hexdigest()


def test_versions_seed_and_data_are_named(page, case) -> None:
    shown = dict(
        item
        for p in page.context["sections"]["reproducibility"]["parts"]
        if p["kind"] == "facts"
        for item in p["items"]
    )
    assert shown["seed"] == str(case.fit.seed)
    assert shown["data (sha256, declared columns)"] == case.fit.log.fingerprint
    assert shown["numpy"][0].isdigit()
    assert set(shown) >= {
        "causalrec",
        "pandas",
        "scikit-learn",
        "econml",
        "dowhy",
        "transformers",
        "torch",
        "clip",
        "folds",
    }


def test_neither_order_nor_the_fits_own_plan_matter(page, case) -> None:
    assert report(case.curve, None, case.checks, case.fit).html() == page.html()


def test_bad_arguments(case) -> None:
    table = {
        r"report got nothing; it needs the Fit": (),
        r"report got Plan; it needs the Fit": (case.plan,),
        r"report got a DataFrame; it shows Plan, Fit, Checks, UpliftCurve": (case.fit, case.fit.to_frame()),
        r"report got two of the kind Fit": (case.fit, case.fit.under("ato")),
        r"the Plan is not the one": (case.fit, replace(case.plan, assumptions=())),
    }
    for message, results in table.items():
        with pytest.raises(ArgumentError, match=message):
            report(*results)
    for title in ("", "  ", 3):
        with pytest.raises(ArgumentError, match="title is"):
            report(case.fit, title=title)


def test_a_section_that_fails_raises(case) -> None:
    broken = replace(case.checks, propensity_histogram={"edges": (0.0, 1.0)})
    with pytest.raises(KeyError, match="treated"):
        report(case.fit, broken)


def test_save(page, tmp_path) -> None:
    path = page.save(tmp_path / "report.html")
    assert path.read_bytes() == page.html().encode()
    page.save(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "a folder; name a file in it"),
        ("missing/report.html", "cannot be written .No such file"),
        ("file.txt/report.html", "Not a directory"),
    ],
)
def test_save_where_nothing_can_be_written(page, tmp_path, name, message) -> None:
    (tmp_path / "file.txt").write_text("kept")
    with pytest.raises(OutputError, match=message):
        page.save(tmp_path / name)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file.txt", "kept")]


def test_an_interrupted_save_keeps_the_old_file(page, tmp_path, monkeypatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self, data):
        self.open("wb").write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        page.save(path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]


def test_verb_and_notebook(page, case) -> None:
    assert cr.report is report
    fragment = page._repr_html_()
    assert fragment.lstrip().startswith('<div class="cr-report">')
    assert all(
        rule.strip().startswith((".cr-report", "@", "--", "}", "color", "font", "padding"))
        for rule in re.findall(r"^([^{}\n]+)\{", fragment, re.M)
    )
