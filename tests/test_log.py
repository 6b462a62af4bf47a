from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, ColumnError, LogError

N = 400
BASE = make_world(N, 100, seed=1).frame.assign(
    title=[f"title {i % 40}" for i in range(N)],
    seen=[["a", "b"] if i % 2 else [] for i in range(N)],
    p=0.5,
    w=1.0,
    written=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N), unit="min"),
    at=pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(N), unit="min"),
)


def with_value(column: str, value: Any, rows: Any = slice(0, 3)) -> Callable[[], pd.DataFrame]:
    def change() -> pd.DataFrame:
        values = BASE[column].astype(object).to_list()
        for i in range(N)[rows]:
            values[i] = value
        made = pd.Series(values, index=BASE.index, dtype=object)
        return BASE.assign(**{column: made if isinstance(value, str) else made.infer_objects()})

    return change


def assigned(**columns: Any) -> Callable[[], pd.DataFrame]:
    return lambda: BASE.assign(**columns)


def few_treated() -> pd.DataFrame:
    return BASE.assign(shown=(np.arange(N) < 49).astype(int))


def no_click_when_shown() -> pd.DataFrame:
    return BASE.assign(clicked=np.where(BASE["shown"] == 1, 0, BASE["clicked"]))


def only_clicks_when_hidden() -> pd.DataFrame:
    return BASE.assign(clicked=np.where(BASE["shown"] == 0, 1, BASE["clicked"]))


def twice() -> pd.DataFrame:
    return pd.concat([BASE, BASE[["rate"]]], axis=1)


def same() -> pd.DataFrame:
    return BASE


BAD: list[tuple[str, Callable[[], pd.DataFrame], dict[str, Any], type[Exception], str]] = [
    ("missing column", same, {"outcome": "bought"}, ColumnError, r"column 'bought' \(outcome\) is not in the table.*It has \['user'"),
    ("misspelt column", same, {"outcome": "cliked"}, ColumnError, r"Did you mean 'clicked'\?"),
    ("duplicated column", twice, {}, ColumnError, r"column 'rate' \(confounders\) is in the table 2 times; rename"),
    ("two roles", same, {"item": "user"}, ColumnError, r"'user' is declared as unit and as item"),
    ("one role twice", same, {"confounders": ["rate", "rate"]}, ColumnError, r"'rate' is declared twice as confounders"),
    ("modifier and confounder", same, {"confounders": ["age"]}, ColumnError, r"declare it as a modifier only"),
    ("treatment as outcome", same, {"outcome": "shown"}, ColumnError, r"'shown' is declared as treatment and as outcome"),
    ("treatment constant", assigned(shown=1), {}, LogError, r"'shown' \(treatment\) is constant \(1\)"),
    ("treatment NaN", with_value("shown", np.nan), {}, LogError, r"'shown' \(treatment\) is missing in 3 of 400 rows"),
    ("treatment None", with_value("shown", None), {}, LogError, r"'shown' \(treatment\) is missing in 3 of 400 rows"),
    ("three levels", with_value("shown", 2), {}, LogError, r"'shown' \(treatment\) has 3 levels"),
    ("continuous", assigned(shown=BASE["rate"]), {}, LogError, r"'shown' \(treatment\) has 400 levels .*must have two"),
    ("lists as treatment", assigned(shown=BASE["seen"]), {}, LogError, r"'shown' \(treatment\) holds list values"),
    ("levels without treated", assigned(shown=np.where(BASE["shown"] == 1, "b", "a")), {}, ArgumentError, r"say which one is treated with treated="),
    ("numbers without treated", assigned(shown=BASE["shown"] + 1), {}, ArgumentError, r"say which one is treated"),
    ("unknown level", same, {"treated": "yes"}, ArgumentError, r"treated is 'yes', must be one of the levels of 'shown'"),
    ("treated of the wrong type", same, {"treated": "1"}, ArgumentError, r"treated is '1', must be one of"),
    ("outcome NaN", with_value("clicked", np.nan), {}, LogError, r"'clicked' \(outcome\) is NaN or infinite in 3 of 400 rows \(first at row 0\); drop"),
    ("outcome infinite", with_value("clicked", np.inf, slice(7, 8)), {}, LogError, r"in 1 of 400 rows \(first at row 7\)"),
    ("outcome text", assigned(clicked="yes"), {}, LogError, r"'clicked' \(outcome\) has dtype .*must be numeric or bool.*'yes'"),
    ("outcome NA", assigned(clicked=pd.array([None, *BASE["clicked"][1:]], dtype="Int64")), {}, LogError, r"NaN or infinite in 1 of 400"),
    ("confounder NaN", with_value("rate", np.nan), {}, LogError, r"'rate' \(confounders\) is NaN or infinite in 3 .*impute it and add an indicator"),
    ("confounder -inf", with_value("rate", -np.inf), {}, LogError, r"'rate' \(confounders\) is NaN or infinite in 3"),
    ("label missing", with_value("device", None), {}, LogError, r"'device' \(confounders\) is missing in 3"),
    ("date as confounder", same, {"confounders": ["at"]}, LogError, r"'at' \(confounders\) is a date; derive"),
    ("identifier as confounder", assigned(device=[f"d{i}" for i in range(N)]), {}, LogError, r"400 labels in 400 rows: it reads like text"),
    ("lists as confounder", same, {"confounders": ["seen"]}, LogError, r"'seen' \(confounders\) holds list values"),
    ("no click", assigned(clicked=0), {}, LogError, r"'clicked' \(outcome\) is 0 in every row"),
    ("arm without a click", no_click_when_shown, {}, LogError, r"treated arm .* has no positive 'clicked'"),
    ("arm of clicks only", only_clicks_when_hidden, {}, LogError, r"control arm .* has only positive 'clicked'"),
    ("empty frame", lambda: BASE.iloc[:0], {}, LogError, r"the table has no rows"),
    ("one user", assigned(user="u"), {}, LogError, r"'user' \(unit\) has one value"),
    ("unit missing", with_value("user", None), {}, LogError, r"'user' \(unit\) is missing in 3"),
    ("unit of lists", assigned(user=BASE["seen"]), {}, LogError, r"'user' \(unit\) holds list values"),
    ("item missing", with_value("title", None), {"item": "title"}, LogError, r"'title' \(item\) is missing in 3"),
    ("49 treated rows", few_treated, {}, LogError, r"treated arm \('shown'\) has 49 rows, must have >= 50"),
    ("text all empty", assigned(title=["", " ", None, "\n"] * (N // 4)), {"text": "title"}, LogError, r"'title' \(text\) is empty in all 400 rows"),
    ("numbers as text", same, {"text": "w"}, LogError, r"'w' \(text\) has dtype float64; must hold strings"),
    ("lists as text", same, {"text": "seen"}, LogError, r"'seen' \(text\) holds list values"),
    ("number among texts", with_value("title", 3), {"text": "title"}, LogError, r"'title' \(text\) holds int values"),
    ("half an emoji", with_value("title", "a \ud83d"), {"text": "title"}, LogError, r"'title' \(text\) holds half a character \('.ud83d'"),
    ("history of numbers", assigned(seen=[[1, 2]] * N), {"history": "seen"}, ColumnError, r"'seen' \(history\) holds lists of int"),
    ("history broken JSON", assigned(seen="[oops"), {"history": "seen"}, ColumnError, r"'\[oops', which is no JSON list"),
    ("history empty", assigned(seen=[[]] * N), {"history": "seen"}, LogError, r"has no history in any row"),
    ("propensity 0", with_value("p", 0.0), {"propensity": "p"}, LogError, r"'p' \(propensity\) is outside \(0, 1\) in 3 of 400 rows"),
    ("propensity 1", with_value("p", 1.0), {"propensity": "p"}, LogError, r"outside \(0, 1\)"),
    ("propensity NaN", with_value("p", np.nan), {"propensity": "p"}, LogError, r"'p' \(propensity\) is NaN or infinite in 3"),
    ("propensity of the slot", assigned(p=0.02), {"propensity": "p"}, LogError, r"has mean 0.0200 but .* it is not P\(treated\)"),
    ("weights negative", with_value("w", -1.0), {"weight": "w"}, LogError, r"'w' \(weight\) has 3 negative rows"),
    ("weights all zero", assigned(w=0.0), {"weight": "w"}, LogError, r"weights must be >= 0 and not all 0"),
    ("exposure before text", with_value("written", pd.Timestamp("2025-01-01")), {"time": ["written", "at"]}, LogError, r"3 of 400 rows have 'at' before 'written'"),
    ("time missing", with_value("at", None), {"time": ["written", "at"]}, LogError, r"'at' \(time\) is missing in 3"),
    ("time unreadable", assigned(at="soon"), {"time": "at"}, LogError, r"'at' \(time\) cannot be read as a time"),
    ("dates against numbers", same, {"time": ["w", "at"]}, LogError, r"'w' and 'at' \(time\) are of different kinds"),
    ("two units", same, {"unit": ["user", "title"]}, ArgumentError, r"unit is \('user', 'title'\), must be one column name"),
    ("no treatment", same, {"treatment": None}, ArgumentError, r"treatment is None, must be a column name"),
    ("number for a name", same, {"confounders": [3]}, ArgumentError, r"confounders is \[3\], must be a column name or a list"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "roles", "error", "says"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_what_cannot_be_analysed_is_refused_in_words(
    make: Callable[[], pd.DataFrame], roles: dict[str, Any], error: type[Exception], says: str
) -> None:
    frame = make()
    before = copy.deepcopy(frame)
    with pytest.raises(error, match=says):
        cr.read_log(frame, **{**ROLES, **roles})
    pd.testing.assert_frame_equal(frame, before)


def test_columns_that_are_numbers_are_no_names() -> None:
    frame = pd.DataFrame(np.zeros((10, 2)))
    with pytest.raises(ColumnError, match=r"column '0' \(treatment\) is not in the table.*It has \[0, 1\]"):
        cr.read_log(frame, treatment="0", outcome="1")


def test_the_probability_of_the_drawn_arm_is_recognised() -> None:
    rng = np.random.default_rng(0)
    e = np.full(4000, 0.2)
    t = (rng.random(4000) < e).astype(int)
    frame = pd.DataFrame({"t": t, "y": rng.integers(0, 2, 4000), "p": np.where(t == 1, e, 1 - e)})
    with pytest.raises(LogError, match=r"probability of the arm that was drawn: use p for treated and 1 − p"):
        cr.read_log(frame, treatment="t", outcome="y", propensity="p")
    assert (
        cr.read_log(frame.assign(p=e), treatment="t", outcome="y", propensity="p").logged_propensity
        is not None
    )


TREATMENTS = {
    "bool": (lambda t: t == 1, None),
    "float": (lambda t: t.astype(float), None),
    "strings": (lambda t: t.map({0: "old", 1: "new"}), "new"),
    "categorical": (lambda t: t.map({0: "old", 1: "new"}).astype("category"), "new"),
    "categorical 0/1": (lambda t: t.astype("category"), None),
    "Int64": (lambda t: t.astype("Int64"), None),
    "boolean": (lambda t: (t == 1).astype("boolean"), None),
    "string dtype": (lambda t: t.map({0: "old", 1: "new"}).astype("string"), "new"),
    "object": (lambda t: t.astype(object), None),
    "int8": (lambda t: t.astype("int8"), None),
    "arrow": (lambda t: t.astype("int64[pyarrow]"), None),
    "numbers with treated": (lambda t: t * 3 + 4, 7),
}


@pytest.mark.parametrize("name", TREATMENTS)
def test_two_levels_of_any_dtype_are_a_treatment(name: str) -> None:
    change, treated = TREATMENTS[name]
    log = cr.read_log(BASE.assign(shown=change(BASE["shown"])), **ROLES, treated=treated)
    np.testing.assert_array_equal(log.treatment, BASE["shown"].to_numpy())


def test_treated_can_turn_the_comparison_round() -> None:
    log = cr.read_log(BASE, **ROLES, treated=0)
    np.testing.assert_array_equal(log.treatment, 1 - BASE["shown"].to_numpy())


@pytest.mark.parametrize(
    "dtype", ["bool", "float64", "Int64", "boolean", "Float64", "int64[pyarrow]", "uint8"]
)
def test_an_outcome_of_any_numeric_dtype(dtype: str) -> None:
    log = cr.read_log(BASE.assign(clicked=BASE["clicked"].astype(dtype)), **ROLES)
    np.testing.assert_array_equal(log.outcome, BASE["clicked"].to_numpy())
    assert log.binary_outcome


@pytest.mark.parametrize(
    "text",
    [None, "", "x" * 100_000, "🎬🍿 👩‍👩‍👧", "مرحبا بالعالم", "<script>alert(1)</script>", "a\x00b"],
    ids=["None", "empty", "long", "emoji", "right-to-left", "HTML", "NUL"],
)
def test_texts_of_every_kind_are_kept_as_they_are(text: str | None) -> None:
    titles = [text, *BASE["title"][1:]]
    log = cr.read_log(BASE.assign(title=pd.Series(titles, dtype=object)), **ROLES, text="title")
    found, codes = log.texts("title")
    assert [found[c] for c in codes] == [t or "" for t in titles]
    assert len(found) == len(set(found))
    assert len(np.unique(log.row_hash)) > N / 2


def test_a_history_may_be_lists_arrays_or_json() -> None:
    cells = [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"], dtype=object),
        '["a", "b"]',
        None,
        "",
        "a",
        [None, "a", " "],
    ]
    frame = BASE.assign(seen=pd.Series(cells * (N // len(cells)), dtype=object))
    found, codes = cr.read_log(frame, **ROLES, history="seen").histories()
    assert [found[c] for c in codes[:8]] == [("a", "b")] * 4 + [(), (), ("a",), ("a",)]


@pytest.mark.parametrize("kind", ["float64", "Int64", "category", "str", "object"])
def test_a_user_is_the_same_however_the_column_holds_his_number(kind: str) -> None:
    """Pandas makes floats of whole numbers where one is missing: 7.0 in one log is 7 in the next."""
    whole = cr.read_log(BASE.assign(user=np.arange(N) % 50 + 1), **ROLES)
    other = cr.read_log(BASE.assign(user=(np.arange(N) % 50 + 1).astype(float) if kind == "float64" else pd.Series(np.arange(N) % 50 + 1).astype(kind)), **ROLES)
    np.testing.assert_array_equal(whole.user_hash, other.user_hash)
    assert whole.shared_units(other) == 50


def test_the_frame_keeps_order_index_and_columns_and_is_never_changed() -> None:
    frame = BASE.set_index(["user", "device"], drop=False).rename_axis(["u", "d"])
    before = copy.deepcopy(frame)
    log = cr.read_log(frame, **ROLES, text="title", history="seen", time=["written", "at"], weight="w")
    train, test = log.split(0.3, random_state=0)
    assert log.frame.index.equals(frame.index)
    assert list(log.frame.columns) == list(frame.columns)
    assert len(train) + len(test) == N
    assert isinstance(log.row_hash.sum(), np.uint64)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(log.frame, before)


def test_a_split_is_by_unit_and_does_not_depend_on_order_names_or_index() -> None:
    log = cr.read_log(BASE, **ROLES)
    train, test = log.split(0.3, random_state=5)
    assert train.shared_units(test) == 0
    assert test.n_units == 30
    rng = np.random.default_rng(0)
    order = rng.permutation(N)
    renamed = BASE.assign(user=BASE["user"].map(dict(enumerate(rng.permutation(100)))).map("user {}".format))
    other = cr.read_log(renamed.iloc[order].set_index(np.zeros(N)), **ROLES).split(0.3, random_state=5)[1]
    key = ["age", "rate"]
    assert set(map(tuple, test.frame[key].to_numpy())) == set(map(tuple, other.frame[key].to_numpy()))


@pytest.mark.parametrize(("size", "units"), [(1e-9, 1), (0.5, 50), (1 - 1e-9, 99)])
def test_a_split_leaves_nobody_and_no_side_empty(size: float, units: int) -> None:
    train, test = cr.read_log(BASE, **ROLES).split(size, random_state=0)
    assert test.n_units == units
    assert len(train) + len(test) == N
    assert len(train) > 0


@pytest.mark.parametrize("size", [0, 1, -0.1, 1.5, float("nan"), "half", True])
def test_a_split_without_a_share(size: Any) -> None:
    with pytest.raises(ArgumentError, match="test_size is"):
        cr.read_log(BASE, **ROLES).split(size)


def test_without_a_unit_rows_are_units_and_the_summary_says_so() -> None:
    log = cr.read_log(BASE, treatment="shown", outcome="clicked")
    assert log.n_units == N
    assert "no unit declared: every row counts as its own unit" in log.summary()
    train, test = log.split(0.25, random_state=0)
    assert train.shared_units(test) == 0
    assert train.shared_units(log) == len(train)


def test_the_fingerprint_follows_the_declared_columns_only() -> None:
    log = cr.read_log(BASE, **ROLES)
    assert cr.read_log(BASE.assign(p=0.1), **ROLES).fingerprint == log.fingerprint
    assert cr.read_log(BASE.assign(rate=BASE["rate"] + 1e-9), **ROLES).fingerprint != log.fingerprint
    assert cr.read_log(BASE.iloc[::-1], **ROLES).fingerprint != log.fingerprint
    assert re.fullmatch("[0-9a-f]{16}", log.fingerprint)


def test_blocks_must_have_the_rows_of_the_log() -> None:
    log = cr.read_log(BASE, **ROLES)
    block = cr.Block("text:t", "text", np.ones((1, 2), np.float32), np.zeros(3, np.int64), ("t",), "test")
    with pytest.raises(LogError, match=r"block 'text:t' has 3 rows, the log 400"):
        log.with_blocks([block])


def test_the_summary_and_its_html_show_roles_and_escape_names() -> None:
    log = cr.read_log(BASE.rename(columns={"clicked": "<b>&"}), **{**ROLES, "outcome": "<b>&"})
    assert "400 impressions, 100 users" in log.summary()
    assert "&lt;b&gt;&amp;" in log._repr_html_()
    assert "<b>&" not in log._repr_html_()
    assert log.to_frame()["role"].tolist() == ["treatment", "outcome", "unit", "modifiers", "confounders"]
