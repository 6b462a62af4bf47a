"""Public data sets: the published numbers come out, and a missing file says what to do."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from causalrec.datasets import (
    confounded_hillstrom,
    hillstrom_text,
    load_coat,
    load_goodbooks,
    load_hillstrom,
    load_open_bandit,
    load_upworthy,
    sources,
)
from causalrec.datasets.sources import SourceFile
from causalrec.datasets.store import locate
from causalrec.errors import ArgumentError, CausalRecWarning, ColumnError, DataUnavailableError

needs_data = pytest.mark.skipif(
    not os.environ.get("CAUSALREC_DATA"),
    reason="CAUSALREC_DATA is not set: it names the folder with the public data sets",
)


@pytest.fixture(scope="module")
def hillstrom():
    return load_hillstrom()


@pytest.fixture(scope="module")
def coat():
    return load_coat()


# Hillstrom


@needs_data
@pytest.mark.parametrize(("segment", "effect"), [("Mens E-Mail", 0.0766), ("Womens E-Mail", 0.0452)])
def test_hillstrom_effects(hillstrom, segment, effect):
    visit = hillstrom.groupby("segment")["visit"].mean()
    assert hillstrom.shape == (64_000, 12)
    assert visit["No E-Mail"] == pytest.approx(0.1062, abs=5e-5)
    assert visit[segment] - visit["No E-Mail"] == pytest.approx(effect, abs=5e-5)


@needs_data
def test_hillstrom_text_says_the_history(hillstrom):
    text = hillstrom_text(hillstrom)
    assert text.index.equals(hillstrom.index)
    assert text[0] == (
        "Last bought 10 months ago and spent 100 to 200 dollars in the past year on men's merchandise, "
        "by phone; a long-standing customer living in the suburbs."
    )
    columns = ["recency", "history_segment", "mens", "womens", "zip_code", "channel", "newbie"]
    assert text.nunique() == len(hillstrom[columns].drop_duplicates())


@needs_data
def test_hillstrom_text_of_few_rows_in_any_order(hillstrom):
    some = hillstrom.sample(50, random_state=0)
    pd.testing.assert_series_equal(hillstrom_text(some), hillstrom_text(hillstrom).loc[some.index])


@needs_data
def test_hillstrom_text_bands(hillstrom):
    text = hillstrom_text(hillstrom)
    for segment, words in (("1) $0 - $100", "0 to 100 dollars"), ("7) $1,000 +", "more than 1,000 dollars")):
        assert text[hillstrom["history_segment"] == segment].str.contains(words, regex=False).all()
    assert text[hillstrom["recency"] == 1].str.contains("1 month ago", regex=False).all()


def test_hillstrom_text_needs_its_columns():
    with pytest.raises(ColumnError, match=r"no column \['recency'"):
        hillstrom_text(pd.DataFrame({"mens": [1]}))


# confounded Hillstrom


@needs_data
@pytest.mark.parametrize(("arm", "effect"), [("men", 0.0766), ("women", 0.0452)])
def test_confounding_misleads_and_weighting_by_design_undoes_it(arm, effect):
    made = [confounded_hillstrom(arm, 1.0, seed) for seed in range(8)]
    naive, weighted = [], []
    for one in made:
        t, y, e = one.frame["mailed"].to_numpy(), one.frame["visit"].to_numpy(), one.propensity
        naive.append(one.naive)
        weighted.append(np.average(y, weights=t / e) - np.average(y, weights=(1 - t) / (1 - e)))
    assert made[0].effect == pytest.approx(effect, abs=5e-5)
    assert np.mean(naive) - effect > 0.02
    assert abs(np.mean(weighted) - effect) < 0.005
    assert abs(np.mean(weighted) - effect) < 4 * np.std(weighted, ddof=1) / np.sqrt(8)


@needs_data
def test_confounding_keeps_the_histories_as_they_were(hillstrom):
    one = confounded_hillstrom("women", 2.0, 0)
    whole = hillstrom[hillstrom["segment"] != "Mens E-Mail"]
    assert len(one.frame) < len(whole)
    for column in ("recency", "newbie", "mens", "womens", "history"):
        gap = one.frame[column].mean() - whole[column].mean()
        assert abs(gap) < 4 * whole[column].std() / np.sqrt(len(one.frame))


@needs_data
def test_confounding_gives_the_propensity_that_it_says():
    one = confounded_hillstrom("men", 1.5, 3)
    e, t = one.propensity, one.frame["mailed"].to_numpy()
    assert e.min() >= 0.1
    assert e.max() <= 0.9
    for part in np.array_split(np.argsort(e, kind="stable"), 8):
        assert abs((t[part] - e[part]).sum() / np.sqrt((e * (1 - e))[part].sum())) < 4
    assert one.frame.assign(e=e).groupby("about")["e"].nunique().max() == 1


@needs_data
def test_strength_nought_is_a_randomised_experiment():
    one = confounded_hillstrom("women", 0.0, 0)
    assert (one.propensity == 0.5).all()
    assert abs(one.naive - one.effect) < 0.015
    assert "naive difference" in one.summary()


@needs_data
def test_confounding_is_decided_by_the_seed():
    one, same, other = (confounded_hillstrom("women", 1.0, s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one.frame, same.frame)
    assert not one.frame.index.equals(other.frame.index)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: confounded_hillstrom("mens"), r"arm is 'mens', must be one of .* Did you mean 'men'"),
    (lambda: confounded_hillstrom("men", -1.0), "strength is -1.0, must be >= 0"),
    (lambda: confounded_hillstrom("men", 1.0, "x"), "random_state is 'x'"),
    (lambda: load_open_bandit("uniform"), "policy is 'uniform', must be one of"),
    (lambda: load_open_bandit(campaign="women"), "campaign is 'women', must be one of"),
])  # fmt: skip
def test_bad_arguments(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


# the others


@needs_data
@pytest.mark.parametrize(("policy", "rate"), [("random", 0.0046), ("bts", 0.0069)])
def test_open_bandit(policy, rate):
    log = load_open_bandit(policy)
    assert len(log) == 10_000
    assert log["item_id"].nunique() == 34
    assert log["click"].mean() == pytest.approx(rate, abs=1e-9)
    assert str(log["timestamp"].dtype).startswith("datetime64")
    assert log["item_feature_0"].notna().all()
    assert set(log["position"]) == {1, 2, 3}


@needs_data
def test_open_bandit_propensity_is_of_the_item_not_of_the_slot():
    log = load_open_bandit("random")
    np.testing.assert_allclose(log["propensity_score"], 1 / 34)
    assert (log["position"] == 1).mean() > 0.3
    assert "P(**item** | slot)" in load_open_bandit.__doc__


@needs_data
def test_coat_numbers(coat):
    ratings, p = coat.train, coat.propensities
    seen = ratings > 0
    assert ratings.shape == coat.test.shape == p.shape == (290, 300)
    for of, (naive, ips, snips, truth) in (
        (lambda r: r, (2.611, 2.424, 2.331, 2.229)),
        (lambda r: r >= 4, (0.274, 0.220, 0.212, 0.185)),
    ):
        value = of(ratings[seen])
        assert value.mean() == pytest.approx(naive, abs=6e-4)
        assert (value / p[seen]).sum() / ratings.size == pytest.approx(ips, abs=6e-4)
        assert np.average(value, weights=1 / p[seen]) == pytest.approx(snips, abs=6e-4)
        assert of(coat.test[coat.test > 0]).mean() == pytest.approx(truth, abs=6e-4)


@needs_data
def test_coat_texts(coat):
    assert coat.users["text"][0] == "Woman aged 20-30 from an urban area, very interested in fashion."
    assert coat.items["text"][0] == "Unusually coloured bomber jacket for men, shown on the front page."
    assert list(coat.items.columns) == ["gender", "jackettype", "color", "onfrontpage", "text"]
    assert len(coat.users) == 290
    assert len(coat.items) == 300
    assert "6,960" in coat.summary()


@needs_data
def test_upworthy():
    packages = load_upworthy()
    assert len(packages) == 22_666
    assert packages["clickability_test_id"].nunique() == 4_873
    assert packages["headline"].nunique() == 12_387
    assert packages["clicks"].sum() == 1_231_208


@needs_data
def test_goodbooks():
    books = load_goodbooks()
    assert books.shape == (10_000, 23)
    assert books["title"].notna().all()


# where files are found


def test_every_source_is_complete():
    for name, source in sources().items():
        assert source.name == name
        assert source.page.startswith("https://")
        assert source.terms
        assert source.citation
        for file in source.files:
            assert len(file.sha256) == 64
            assert file.url is None or file.url.startswith("http")
        assert source.terms in source.summary()


def published(tmp_path, content, **changes):
    """A source of one file whose 'address' is a file on this machine."""
    there = tmp_path / "published.bin"
    there.write_bytes(content)
    file = SourceFile("toy/file.csv", hashlib.sha256(content).hexdigest(), there.as_uri())
    return replace(sources()["hillstrom"], files=(replace(file, **changes),))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSALREC_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("CAUSALREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own" / "toy").mkdir(parents=True)
    return tmp_path


def test_own_folder_comes_first_and_a_changed_file_warns(folders):
    own = folders / "own" / "toy" / "file.csv"
    own.write_bytes(b"changed")
    with pytest.warns(CausalRecWarning, match="not the file that this loader was tested with"):
        assert locate(published(folders, b"a,b"), "toy/file.csv") == own


def test_a_download_is_kept_and_not_fetched_again(folders):
    source = published(folders, b"a,b")
    kept = locate(source, "toy/file.csv")
    assert kept == folders / "cache" / "data" / "toy" / "file.csv"
    assert kept.read_bytes() == b"a,b"
    (folders / "published.bin").unlink()
    assert locate(source, "toy/file.csv") == kept


def test_a_broken_file_in_the_cache_is_fetched_again(folders):
    source = published(folders, b"a,b")
    locate(source, "toy/file.csv").write_bytes(b"a")
    assert locate(source, "toy/file.csv").read_bytes() == b"a,b"


def test_a_member_of_an_archive(folders):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner/file.csv", "a,b")
    sha256 = hashlib.sha256(b"a,b").hexdigest()
    source = published(folders, packed.getvalue(), sha256=sha256, member="inner/file.csv")
    assert locate(source, "toy/file.csv").read_bytes() == b"a,b"


@pytest.mark.parametrize(("changes", "message"), [
    ({"sha256": "0" * 64}, "has sha256 .*, must be 0000"),
    ({"url": "file:///nowhere/at/all"}, "cannot be fetched"),
    ({"member": "inner/file.csv"}, "cannot be fetched"),
    ({"url": None}, "has no address that it can be fetched from"),
])  # fmt: skip
def test_what_cannot_be_had_says_what_to_do_and_leaves_nothing(folders, changes, message):
    with pytest.raises(DataUnavailableError, match=message) as caught:
        locate(published(folders, b"a,b", **changes), "toy/file.csv")
    assert "set CAUSALREC_DATA to that folder" in str(caught.value)
    assert not list((folders / "cache").rglob("*.*"))


def test_a_cache_that_cannot_be_written(folders):
    (folders / "cache").write_text("a file, not a folder")
    with pytest.raises(DataUnavailableError, match="set CAUSALREC_CACHE to a folder"):
        locate(published(folders, b"a,b"), "toy/file.csv")


def test_an_unknown_path_of_a_source():
    with pytest.raises(ArgumentError, match=r"path is 'coat/trian.ascii'.*Did you mean 'coat/train.ascii'"):
        locate(sources()["coat"], "coat/trian.ascii")
