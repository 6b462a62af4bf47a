from __future__ import annotations

import gzip
import json
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from econml.dml import CausalForestDML
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec._manifest import FORMAT, MANIFEST
from causalrec._stored import Reader, Store, _narrowed, pickled
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, HonestyError, OutputError, SavedError
from causalrec.estimate.fit import Fit
from causalrec.log import ImpressionLog
from causalrec.saved import load, save

TITLES = np.array([f"title {k}" for k in range(60)], dtype=object)
Change = Callable[[Path], None]


def text_log(n: int = 3000, n_users: int = 600, *, unit: bool = True) -> ImpressionLog:
    """A log with a text of 40 columns, items that repeat, and labels."""
    frame = make_world(n, n_users, seed=1).frame
    item = np.random.default_rng(2).integers(0, 60, n)
    roles = {**ROLES, "modifiers": ["age", "device"], "confounders": ["rate"]}
    if not unit:
        roles.pop("unit")
    log = cr.read_log(frame.assign(item=item, title=TITLES[item]), **roles, item="item", text="title")
    texts, codes = log.texts("title")
    values = np.random.default_rng(3).standard_normal((len(texts), 40)).astype(np.float32)
    return log.with_blocks(
        [Block("text:title", "text", values, codes, ("title",), "by hand", texts=tuple(texts))]
    )


def fitted(log: ImpressionLog, **options: Any) -> Fit:
    return cr.estimate(log, cr.identify(log), random_state=0, **{"folds": cr.Folds(4), **options})


@pytest.fixture(scope="module")
def halves() -> tuple[ImpressionLog, ImpressionLog]:
    return text_log().split(random_state=0)


@pytest.fixture(scope="module")
def fit(halves: tuple[ImpressionLog, ImpressionLog]) -> Fit:
    return fitted(halves[0], correction=cr.Correction(order=2, kernels=("same_item",)))


@pytest.fixture(scope="module")
def folder(fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(fit, tmp_path_factory.mktemp("saved") / "fit")


@pytest.fixture
def copy(fit: Fit, tmp_path: Path) -> Path:
    return save(fit, tmp_path / "fit")


def test_a_loaded_fit_says_and_does_the_same(
    fit: Fit, folder: Path, halves: tuple[ImpressionLog, ImpressionLog]
) -> None:
    train, test = halves
    back = load(folder, trusted=True)
    assert back.summary() == fit.summary()
    assert back.correction.order == 2
    pd.testing.assert_frame_equal(back.log.frame, train.frame)
    assert back.log.fingerprint == train.fingerprint
    np.testing.assert_array_equal(back.cate(test), fit.cate(test))
    np.testing.assert_array_equal(back.scores, fit.scores)
    np.testing.assert_array_equal(back.cate_interval(test), fit.cate_interval(test))
    assert back.under("att").summary() == fit.under("att").summary()
    assert back.by("age").summary() == fit.by("age").summary()
    one, other = (cr.uplift(f, test) for f in (fit, back))
    assert one.summary() == other.summary()
    pd.testing.assert_frame_equal(one.table, other.table)


def test_a_loaded_fit_can_be_refuted(folder: Path, fit: Fit) -> None:
    back = load(folder, trusted=True)
    design, own = back.nuisances.problem.outcome_design, fit.nuisances.problem.outcome_design
    assert design is back.nuisances.problem.propensity_design
    np.testing.assert_array_equal(design.dense(), own.dense())
    np.testing.assert_array_equal(design.row_hash, own.row_hash)
    one, other = (cr.refute(f, n_simulations=20, random_state=0, progress=False) for f in (fit, back))
    assert one.summary() == other.summary()


def test_a_fit_of_a_fit_is_the_same_fit(folder: Path, tmp_path: Path) -> None:
    again = save(load(folder, trusted=True), tmp_path / "again")
    first, second = (json.loads((f / MANIFEST).read_text(encoding="utf-8")) for f in (folder, again))
    assert first["summary"] == second["summary"]
    assert first["arrays"] == second["arrays"]
    assert first["files"]["arrays.npz"] == second["files"]["arrays.npz"]


def test_the_manifest_says_what_is_in_the_folder(fit: Fit, folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert (manifest["format"], manifest["what"], manifest["with_log"]) == (FORMAT, "Fit", True)
    assert manifest["summary"] == fit.summary().splitlines()
    assert manifest["blocks"] == {"text:title": "by hand"}
    assert manifest["versions"]["causalrec"] == cr.__version__
    assert set(manifest["versions"]) == {"causalrec", "python", "numpy", "pandas", "scikit-learn", "econml"}
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {MANIFEST}
    assert [len(fit.log)] in [a["shape"] for a in manifest["arrays"].values()]


@pytest.mark.parametrize("unit", [True, False])
def test_without_its_log_a_fit_predicts_and_is_judged_and_no_more(tmp_path: Path, unit: bool) -> None:
    train, test = text_log(unit=unit).split(random_state=0)
    fit = fitted(train, correction=cr.Correction(order=1))
    back = load(save(fit, tmp_path / "slim", with_log=False), trusted=True)
    refit = "The other path"  # is to fit again, which takes the log
    said = [line for line in fit.summary().splitlines() if refit not in line]
    assert back.summary().splitlines() == said
    assert set(back.log.frame.columns) == {"shown", "clicked", "age", "device", "item"} | (
        {"user"} if unit else set()
    )
    np.testing.assert_array_equal(back.cate(test), fit.cate(test))
    assert cr.uplift(back, test).summary() == cr.uplift(fit, test).summary()
    assert back.by("age").summary() == fit.by("age").summary()
    for again in (back, load(save(back, tmp_path / "slimmer"), trusted=True)):
        with pytest.raises(HonestyError, match="were in the fit"):
            cr.uplift(again, train)
        for use in (
            lambda f: cr.refute(f, n_simulations=20, random_state=0, progress=False),
            lambda f: f.under("att"),
            lambda f: f.bias_aware(),
            lambda f: f.log.histories(),
        ):
            with pytest.raises(
                SavedError, match=r"saved with with_log=False, without .*save it with its log"
            ):
                use(again)


def test_without_its_log_no_text_is_written(tmp_path: Path, fit: Fit) -> None:
    back = load(save(fit, tmp_path / "slim", with_log=False), trusted=True)
    assert back.log.blocks == {}
    store = Store()
    whole = pickled(back, store, {})
    assert b"title 7" not in gzip.decompress(whole)
    assert b"title 7" in gzip.decompress(pickled(fit, Store(), {}))


def test_other_models_learners_and_results(
    tmp_path: Path, fit: Fit, halves: tuple[ImpressionLog, ImpressionLog]
) -> None:
    train, test = halves
    logistic = cr.NuisanceRecipe(LogisticRegression(), LogisticRegression())
    forest = CausalForestDML(n_estimators=8, discrete_treatment=True, random_state=0)
    other = fitted(train, model=forest, nuisances=logistic)
    back = load(save(other, tmp_path / "forest"), trusted=True)
    assert back.summary() == other.summary()
    np.testing.assert_allclose(back.cate(test), other.cate(test), rtol=1e-9)  # trees are summed by threads
    assert back.model.cv == 4  # and not the rows of the folds
    mixed = fitted(train, nuisances=cr.SuperLearner(members=("ridge",), inner_folds=3, parts=2))
    again = load(save(mixed, tmp_path / "mixed"), trusted=True)
    assert again.summary() == mixed.summary()
    assert cr.uplift(again, test).summary() == cr.uplift(mixed, test).summary()
    curve = cr.uplift(fit, test)
    read = load(save(curve, tmp_path / "curve"), trusted=True)
    assert read.summary() == curve.summary()
    np.testing.assert_array_equal(read.gain_upper, curve.gain_upper)
    pd.testing.assert_frame_equal(read.table, curve.table)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([["a", "b"], ["c"]] * 600),
        pd.Series([1, "one"] * 600, dtype=object),
        pd.Series(pd.Categorical(["x", "y"] * 600, categories=["y", "x", "z"], ordered=True)),
        pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"] * 600)),
        pd.Series([1, None] * 600, dtype="Int64"),
        pd.Series([0.1, np.nan] * 600),
    ],
    ids=["lists", "mixed", "categories", "dates", "nullable", "missing"],
)
def test_any_column_comes_back_as_it_was(tmp_path: Path, column: pd.Series) -> None:
    frame = pd.DataFrame({"c": column, "n": range(1200)}, index=pd.Index(np.arange(1200)[::-1], name="row"))
    store = Store()
    (tmp_path / "x.pkl.gz").write_bytes(pickled(frame, store, {}))
    store.write(tmp_path)
    back = Reader(tmp_path).read("x.pkl.gz")
    pd.testing.assert_frame_equal(back, frame)
    assert [type(v) for v in back["c"][:2]] == [type(v) for v in frame["c"][:2]]


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(
        arrays(np.float64, (5, 2), elements=st.floats(allow_nan=True, allow_infinity=True)),
        arrays(np.float64, 8, elements=st.sampled_from([0.0, -0.0, 1.0, 255.0, 0.5, 1e300])),
        arrays(np.int64, 6, elements=st.integers(-(2**63), 2**63 - 1)),
        arrays(np.uint64, 6, elements=st.integers(0, 2**64 - 1)),
        arrays(np.float32, 6, elements=st.floats(width=32)),
    )
)
def test_narrowing_keeps_every_bit(array: np.ndarray) -> None:
    smaller = _narrowed(array)
    assert smaller.astype(array.dtype).tobytes() == array.tobytes()
    assert smaller.nbytes <= array.nbytes


def test_indicators_take_a_byte_a_row_and_equal_arrays_are_written_once() -> None:
    store, ones = Store(), np.ones(5000)
    first, second, third = (store.put_array(a) for a in (ones, ones.copy(), np.ones(5000, dtype=np.int64)))
    assert first == second == ("array", "a0", "float64")
    assert third == ("array", "a0", "int64")
    assert store.arrays["a0"].nbytes == 5000


def test_blocks_are_a_mapping_that_plain_pickle_refuses(
    tmp_path: Path, halves: tuple[ImpressionLog, ImpressionLog]
) -> None:
    with pytest.raises(TypeError, match="mappingproxy"):
        pickle.dumps(halves[0])
    back = load(save(halves[0], tmp_path / "log"), trusted=True)
    assert back.fingerprint == halves[0].fingerprint
    with pytest.raises(TypeError, match="does not support item assignment"):
        back.blocks["other"] = back.blocks["text:title"]


def test_a_lambda_in_a_model_is_named(tmp_path: Path, fit: Fit) -> None:
    with pytest.raises(SavedError, match=r"cannot be saved: .*lambda.*importable classes"):
        save(replace(fit, model=lambda x: x), tmp_path / "fit")
    assert list(tmp_path.iterdir()) == []


def edit(change: Callable[[dict[str, Any]], None]) -> Change:
    def run(folder: Path) -> None:
        path = folder / MANIFEST
        manifest = json.loads(path.read_text(encoding="utf-8"))
        change(manifest)
        path.write_text(json.dumps(manifest), encoding="utf-8")

    return run


def flip(name: str) -> Change:
    def run(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / MANIFEST).unlink(), "has no manifest.json, so save did not write it"),
        (lambda f: (f / MANIFEST).write_text("{"), "manifest.json is damaged"),
        (lambda f: (f / MANIFEST).write_text("[1]"), "manifest.json is damaged"),
        (edit(lambda m: m.pop("files")), "manifest.json is damaged"),
        (edit(lambda m: m.update(format=FORMAT + 1)), r"has format 2, this causalrec .* reads up to 1; upgrade"),
        (edit(lambda m: m["versions"].update(causalrec="9.9")), r"saved with causalrec 9.9 \(here .*trust_versions"),
        (edit(lambda m: m["versions"].update(econml="0.1.0")), "saved with econml 0.1.0"),
        (edit(lambda m: m["versions"].pop("numpy")), r"saved with numpy \?"),
        (flip("arrays.npz"), "arrays.npz is not as it was written"),
        (flip("table0.parquet"), "table0.parquet is not as it was written"),
        (flip("result.pkl.gz"), "result.pkl.gz is not as it was written"),
        (lambda f: (f / "log.pkl.gz").write_bytes(b""), r"\(0 bytes, "),
        (lambda f: (f / "arrays.npz").unlink(), "lacks 'arrays.npz'"),
        (edit(lambda m: m["files"].update({"../x": {"sha256": "", "bytes": 0}})), r"lacks '\.\./x'"),
    ],
)  # fmt: skip
def test_what_is_damaged_or_of_another_version_is_refused(copy: Path, change: Change, message: str) -> None:
    change(copy)
    with pytest.raises(SavedError, match=message):
        load(copy, trusted=True)


def test_other_versions_can_be_trusted_but_no_other_format(copy: Path, fit: Fit) -> None:
    edit(lambda m: m["versions"].update(econml="0.1.0", causalrec="9.9"))(copy)
    assert load(copy, trusted=True, trust_versions=True).summary() == fit.summary()
    edit(lambda m: m.update(format=FORMAT + 1))(copy)
    with pytest.raises(SavedError, match="upgrade causalrec"):
        load(copy, trusted=True, trust_versions=True)


def test_a_patch_release_of_a_package_is_no_mismatch(copy: Path, fit: Fit) -> None:
    edit(lambda m: m["versions"].update(python=".".join(m["versions"]["python"].split(".")[:2]) + ".99"))(
        copy
    )
    assert load(copy, trusted=True).summary() == fit.summary()


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (TRAP,))


TRAP = Path("never")


def test_nothing_is_unpickled_before_it_is_trusted(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TRAP", tmp_path / "sprung")
    (copy / "result.pkl.gz").write_bytes(gzip.compress(pickle.dumps(Trap())))
    with pytest.raises(SavedError, match=r"can run any code.*trusted=True"):
        load(copy)
    with pytest.raises(SavedError, match="not as it was written"):
        load(copy, trusted=True)
    assert not (tmp_path / "sprung").exists()


def test_folders_that_are_no_place_to_write(tmp_path: Path, fit: Fit, copy: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    for target, options, message in (
        (file, {}, "is a file"),
        (copy, {}, "exists and is not empty; .*overwrite=True"),
        (other, {}, "exists and is not empty"),
        (other, {"overwrite": True}, "save did not write it and does not replace it"),
        (file / "deep" / "fit", {}, "cannot be written"),
    ):
        with pytest.raises(OutputError, match=message):
            save(fit, target, **options)  # type: ignore[arg-type]
    assert (other / "thesis.tex").read_text() == "x"
    for missing, message in ((tmp_path / "none", "does not exist"), (file, "is a file")):
        with pytest.raises(SavedError, match=message):
            load(missing)


def test_overwriting_replaces_what_save_wrote(copy: Path, fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert load(save(fit, tmp_path / "empty"), trusted=True).n == fit.n
    save(fit.under("att"), copy, overwrite=True)
    assert load(copy, trusted=True).estimand == "ATT"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "fit"]


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file may grow beyond `most` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("most", [0, 20_000])
def test_a_disk_that_fills_up_leaves_what_was_there(copy: Path, fit: Fit, tmp_path: Path, most: int) -> None:
    for target in (copy, tmp_path / "new"):
        with full_disk(most), pytest.raises(OutputError, match=r"cannot be written.*Nothing was left there"):
            save(fit.under("att"), target, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]
    assert load(copy, trusted=True).summary() == fit.summary()


@pytest.mark.parametrize(
    ("result", "options", "message"),
    [
        ({"effect": 1}, {}, "got a dict"),
        (Fit, {}, "got a type"),
        (cr.Clip(), {}, "got a Clip"),
    ],
)
def test_what_is_no_result(tmp_path: Path, result: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        save(result, tmp_path / "x", **options)


def test_a_result_without_a_log_has_none_to_leave_out(tmp_path: Path, fit: Fit) -> None:
    with pytest.raises(ArgumentError, match="a GroupEffects has no log"):
        save(fit.by("age"), tmp_path / "x", with_log=False)
    assert load(save(fit.by("age"), tmp_path / "x"), trusted=True).summary() == fit.by("age").summary()
