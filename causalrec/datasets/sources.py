"""Where each public data set comes from: URL, sha256, terms, citation. A table, and nothing but a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalrec._checks import check_choice
from causalrec._display import Displayable


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set.

    Attributes
    ----------
    path : str
        Where it lies below the data folder.
    sha256 : str
        Of the file that the loaders were written and tested with.
    url : str or None
        Where it can be fetched from as it is; None: only by hand, from the source's page.
    member : str or None
        The file's name inside the ZIP archive at `url`; None: `url` is the file itself.
    """

    path: str
    sha256: str
    url: str | None
    member: str | None = None


@dataclass(frozen=True)
class Source(Displayable):
    """One public data set: its files, and on what terms they may be used."""

    name: str
    page: str
    terms: str
    citation: str
    files: tuple[SourceFile, ...]

    def file(self, path: str) -> SourceFile:
        """The file that lies at `path` below the data folder."""
        by_path = {f.path: f for f in self.files}
        return by_path[check_choice(path, "path", list(by_path))]

    def _title(self) -> str:
        return f"{self.name}: {self.page}"

    def _rows(self) -> list[dict[str, Any]]:
        return [{"path": f.path, "sha256": f.sha256, "url": f.url} for f in self.files]

    def _notes(self) -> list[str]:
        return [f"terms: {self.terms}", f"cite: {self.citation}"]


_OBD = "https://raw.githubusercontent.com/st-tech/zr-obp/master/obd"
_COAT = "https://www.cs.cornell.edu/~schnabts/mnar/coat.zip"


def _obd(policy: str, name: str, sha256: str) -> SourceFile:
    return SourceFile(f"open-bandit/{policy}/{name}", sha256, f"{_OBD}/{policy}/men/{name}")


def _coat(name: str, sha256: str) -> SourceFile:
    return SourceFile(f"coat/{name}", sha256, _COAT, member=f"coat/{name}")


_TABLE = (
    Source(
        name="hillstrom",
        page="https://blog.minethatdata.com/2008/03/minethatdata-e-mail-analytics-and-data.html",
        terms="published for a public challenge; no licence text",
        citation="Hillstrom, K. (2008). The MineThatData E-Mail Analytics and Data Mining Challenge.",
        files=(
            SourceFile(
                "hillstrom/hillstrom.csv",
                "0e5893329d8b93cefecc571777672028290ab69865718020c78c7284f291aece",
                "http://www.minethatdata.com/Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv",
            ),
        ),
    ),
    Source(
        name="open-bandit",
        page="https://github.com/st-tech/zr-obp",
        terms="Apache-2.0 for the repository that holds this sample",
        citation=(
            "Saito, Y., Aihara, S., Matsutani, M., Narita, Y. (2021). Open Bandit Dataset and Pipeline. "
            "NeurIPS Datasets and Benchmarks. arXiv:2008.07146."
        ),
        files=(
            _obd("random", "men.csv", "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb"),
            _obd(
                "random",
                "item_context.csv",
                "6d855c2b7e917d0448d71bbe62c023147495882c0fdc8c41e86fef86abf9fe09",
            ),
            _obd("bts", "men.csv", "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527"),
            _obd(
                "bts", "item_context.csv", "3b411ed6b0471316321a6b93f4f756bb25888eac6218cd71d0b603d41d85732d"
            ),
        ),
    ),
    Source(
        name="upworthy",
        page="https://osf.io/jd64p",
        terms="CC BY 4.0 as quoted by third parties; check before redistributing",
        citation=(
            "Matias, J. N., Munger, K., Aubin Le Quere, M., Ebersole, C. (2021). The Upworthy Research "
            "Archive, a time series of 32,487 experiments in U.S. media. Scientific Data 8, 195."
        ),
        files=(
            SourceFile(
                "upworthy/upworthy_clean.parquet",
                "91d1d583e267dbd9b4bb3641eb764245e61013deea99a651bdd129376df24782",
                None,
            ),
        ),
    ),
    Source(
        name="coat",
        page="https://www.cs.cornell.edu/~schnabts/mnar/",
        terms="no licence stated: local use only",
        citation=(
            "Schnabel, T., Swaminathan, A., Singh, A., Chandak, N., Joachims, T. (2016). "
            "Recommendations as Treatments: Debiasing Learning and Evaluation. ICML."
        ),
        files=(
            _coat("train.ascii", "f9088c6e95fa9a42e8be6a92fc77252b95b969e34ed1299c611420da68680873"),
            _coat("test.ascii", "51fa28550f5bedebc6959d0e7b5e242b173c3c8d16317c7e49b89441304504ce"),
            _coat("propensities.ascii", "a72e3142a413623c4a6b9d20c4f70fcc017e0db67cc3eb242116f69fb8fb9661"),
            _coat("user_features.ascii", "593b59c63a3f983575d3a770b32158fdfa4e2e4f63aafffdee70d1600ff072f8"),
            _coat(
                "user_features_map.txt", "3b8c825ad4445d4a46a400629c5fb43c805ff5a7982b2e436b69e7262c8a013a"
            ),
            _coat("item_features.ascii", "72b08cc0766d3e9899231aea90c815b5bb08e07dcfba569d5f182da649099f5a"),
            _coat(
                "item_features_map.txt", "2675dfaa38b89a9cbb1997f0cfcd46ed7e0e366dc515d12d95508d1f356e5d25"
            ),
        ),
    ),
    Source(
        name="goodbooks",
        page="https://github.com/zygmuntz/goodbooks-10k",
        terms="CC BY-SA 4.0",
        citation="Zając, Z. (2017). Goodbooks-10k: a new dataset for book recommendations. FastML.",
        files=(
            SourceFile(
                "goodbooks/books.csv",
                "4d21d0e0433128657c752e3a3d0405ac0ec11675d6c70c64cb0abf4ab1acb76a",
                "https://raw.githubusercontent.com/zygmuntz/goodbooks-10k/master/books.csv",
            ),
        ),
    ),
)


def sources() -> dict[str, Source]:
    """The public data sets by name, each with its files, sha256, terms and citation."""
    return {source.name: source for source in _TABLE}
