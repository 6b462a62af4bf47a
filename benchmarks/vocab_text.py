"""Texts written from known latents, and the law by which the words of a text act on exposure and clicks.

The latents (shares of six topics, a sentiment, a quality) are what the words say exactly: a topic's share is
its share of the eight topic words. Exposure and clicks that depend on them depend on the text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

import causalrec as cr
from causalrec.represent.lexical import LexicalStyle

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SLOTS = 8  # topic words in a text
CONCENTRATION = 0.25  # of the Dirichlet from which topic shares are drawn

TOPICS = {
    "climbing": "summit rope glacier ridge basecamp avalanche crampons altitude alpinist crevasse icefall sherpa "
    "harness belay ledge snowfield bivouac cornice",
    "sewing": "needle thread quilt fabric zipper bobbin hem embroidery seamstress linen lace cotton pleat "
    "buttonhole tailor velvet crochet stitch",
    "software": "compiler database laptop server firewall browser algorithm programmer keyboard debugger backup "
    "malware spreadsheet password codebase router chatbot smartphone",
    "sailing": "harbour yacht mast anchor lighthouse tide regatta rudder sailor keel dinghy lagoon spinnaker "
    "trawler jetty skipper buoy catamaran",
    "livestock": "sheep cattle barn tractor dairy piglet shepherd poultry hay calf goat pasture milking farmyard "
    "rooster wool stable lamb",
    "courtroom": "judge jury verdict lawsuit attorney witness prosecutor appeal courthouse bail felony defendant "
    "testimony tribunal sentencing plaintiff subpoena barrister",
}
SENTIMENT = (  # from −2 to +2: the word before the subject, and the last clause
    ("dreadful", "everybody loathed it and wept"),
    ("gloomy", "most people were let down"),
    ("plain", "people took note of it"),
    ("cheerful", "most people were glad"),
    ("glorious", "everybody adored it and cheered"),
)
QUALITY = (  # from −2 to +2: what kind of piece it is
    "A sloppy hoax post",
    "An unsigned blog scrap",
    "A short column",
    "A careful long-read",
    "A rigorous peer-reviewed paper",
)
MARKERS = ("handpicked for you", "top of your list", "our choice today", "featured this week")


@dataclass(frozen=True, eq=False)
class Pool:
    """Texts that a log draws from, each with its vector and the latents that act.

    Attributes
    ----------
    texts : (m,) distinct strings
    vectors : (m, d) float32, by the frozen encoder
    z : (m, q) latents, standardised over the pool
    names : (q,) what the columns of `z` are
    made_by : str, fingerprint of the encoder
    """

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    z: Floats
    names: tuple[str, ...]
    made_by: str

    def __len__(self) -> int:
        return len(self.texts)

    def latent(self, name: str) -> Floats:
        """``(m,)`` one column of z."""
        return self.z[:, self.names.index(name)]

    def take(self, rows: Ints) -> Pool:
        """The pool of some texts only."""
        texts = tuple(self.texts[i] for i in rows)
        return Pool(texts, self.vectors[rows], self.z[rows], self.names, self.made_by)

    @cached_property
    def dtype(self) -> pd.CategoricalDtype:
        """Labels of a text column whose codes are rows of the pool."""
        return pd.CategoricalDtype(list(self.texts))

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """``(m,)`` hash of each text, by which folds know it."""
        return pd.util.hash_array(np.array(self.texts, dtype=object))

    def block(self, codes: Ints) -> cr.Block:
        """The representation block of rows with these texts."""
        return cr.Block("text:title", "text", self.vectors, codes, ("title",), self.made_by, self.keys)

    @cached_property
    def style(self) -> npt.NDArray[np.float32]:
        """``(m, 30)`` lexical and style features, the block that `embed` puts beside the embedding."""
        return LexicalStyle().fit_transform(list(self.texts)).astype(np.float32)

    def style_block(self, codes: Ints) -> cr.Block:
        """The lexical block of rows with these texts."""
        return cr.Block("lexical:title", "lexical", self.style, codes, ("title",), "LexicalStyle", self.keys)


def standardised(values: Floats) -> Floats:
    """Mean 0 and standard deviation 1 over the pool."""
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0), dtype=np.float64)


def encoded(texts: list[str], z: Floats, names: tuple[str, ...]) -> Pool:
    """A pool with the vectors of the default encoder; texts that were encoded before come from its cache."""
    embedder = cr.TextEmbedder(progress=False)
    return Pool(tuple(texts), embedder.transform(texts), z, names, embedder.fingerprint)


@cache
def written_pool(size: int = 6_000, seed: int = 41) -> Pool:
    """So many different texts; z is the shares of the first five topics (the six sum to 1), sentiment and quality.

    Shares are multinomial(8, p)/8 with p ~ Dirichlet(.25); sentiment and quality are uniform on −2 … 2.
    """
    rng = np.random.default_rng(seed)
    texts: dict[str, list[float]] = {}
    while len(texts) < size:
        counts = rng.multinomial(SLOTS, rng.dirichlet(np.full(len(TOPICS), CONCENTRATION)))
        s, q = rng.integers(0, 5, 2)
        texts.setdefault(write(counts, int(s), int(q), rng), [*counts[:-1] / SLOTS, s - 2.0, q - 2.0])
    names = (*list(TOPICS)[:-1], "sentiment", "quality")
    return encoded(list(texts), standardised(np.array(list(texts.values()))), names)


def write(counts: Ints, sentiment: int, quality: int, rng: np.random.Generator) -> str:
    """One text with so many words of each topic; levels are 0 … 4."""
    words: list[str] = []
    for topic, count in zip(TOPICS.values(), counts, strict=True):
        words += rng.choice(topic.split(), count, replace=False).tolist()
    w = [words[i] for i in rng.permutation(len(words))]
    adjective, clause = SENTIMENT[sentiment]
    listed = f"{w[0]}, {w[1]} and {w[2]} with {w[3]}, {w[4]} and {w[5]}, by the {w[6]} and {w[7]}"
    return f"{QUALITY[quality]} on a {adjective} {listed}: {clause}"


@cache
def marked_pool(size: int = 6_000) -> Pool:
    """The written texts, then each of them once more with a phrase that says that it was recommended."""
    plain = written_pool(size)
    marked = [f"{t}, {MARKERS[i % len(MARKERS)]}" for i, t in enumerate(plain.texts)]
    return encoded([*plain.texts, *marked], np.vstack([plain.z, plain.z]), plain.names)


@dataclass(frozen=True)
class Normal:
    """A standard normal that acts on the log odds of exposure and of a click, beside the words.

    Attributes
    ----------
    name : str, its column where it is `seen`
    on_exposure, on_click : float, log odds per standard deviation
    of : {"row", "user", "item"}, what has one value of it
    seen : bool, whether the log has it as a confounder
    """

    name: str
    on_exposure: float
    on_click: float
    of: str = "row"
    seen: bool = True


@dataclass(frozen=True, eq=False)
class Law:
    """P(T=1) and P(Y=1) of a row with text j and normals g.

    e = eps + (1 − 2 eps) σ(exposure_j + Σ_k α_k g_k);  m_t = σ(click_j + Σ_k β_k g_k + t · effect_j).

    Attributes
    ----------
    exposure, click, effect : (m,) log odds by text
    eps : float, the propensity stays within [eps, 1 − eps]
    normals : what else acts; α_k and β_k are their ``on_exposure`` and ``on_click``
    share : (m,) probabilities by which rows draw a text; None: all alike
    known : columns of the log that are (m,) facts of a text's item, their action being in `exposure` and `click`
    """

    exposure: Floats
    click: Floats
    effect: Floats
    eps: float = 0.05
    normals: tuple[Normal, ...] = ()
    share: Floats | None = None
    known: Mapping[str, Floats] = field(default_factory=dict)

    def nuisances(self, codes: Ints, on_exposure: Floats, on_click: Floats) -> tuple[Floats, Floats, Floats]:
        """(e, m0, m1) of rows with these texts and these sums Σ α g and Σ β g, all ``(n,)`` or broadcast."""
        e = self.eps + (1 - 2 * self.eps) * expit(self.exposure[codes] + on_exposure)
        index = self.click[codes] + on_click
        return e, expit(index), expit(index + self.effect[codes])

    def truth(self, nodes: int = 15) -> dict[str, float]:
        """Exact superpopulation ATE, ATT and ATO: a sum over the texts, Gauss–Hermite quadrature over the normals.

        (Σ α g, Σ β g) is bivariate normal whatever the number of normals, so that two dimensions suffice.
        """
        a = np.array([[v.on_exposure, v.on_click] for v in self.normals] or [[0.0, 0.0]])
        values, vectors = np.linalg.eigh(a.T @ a)
        root = vectors * np.sqrt(values.clip(min=0))
        x, w = np.polynomial.hermite_e.hermegauss(nodes)
        codes = np.arange(len(self.exposure))
        share = np.full(len(codes), 1 / len(codes)) if self.share is None else self.share
        sums = np.zeros(5)
        for i in range(nodes):
            for j in range(nodes):
                weight = share * w[i] * w[j] / w.sum() ** 2
                e, m0, m1 = self.nuisances(codes, *(root @ np.array([x[i], x[j]])))
                tau = m1 - m0
                sums += [(weight * v).sum() for v in (tau, e * tau, e, e * (1 - e) * tau, e * (1 - e))]
        return {"ate": float(sums[0]), "att": float(sums[1] / sums[2]), "ato": float(sums[3] / sums[4])}


# weights of the first five topics, the sixth being 0: for exposure, for clicks
TOPIC_WEIGHTS = np.array([[1.0, -0.9, 0.6, -0.3, 0.4], [0.7, -1.0, 0.3, 0.5, -0.6]])
BASE, GAIN = -1.1, 0.5


def linear(pool: Pool, which: int) -> Floats:
    """``(m,)`` topics, sentiment and quality in a straight line, standardised; 0: of exposure, 1: of clicks."""
    topics = standardised(pool.z[:, :5] @ TOPIC_WEIGHTS[which])
    return standardised(topics + (0.6, 0.7)[which] * pool.latent("sentiment") + 0.5 * pool.latent("quality"))


def curved(pool: Pool, which: int) -> Floats:
    """``(m,)`` topic × sentiment + quality², with a little topic, standardised."""
    topics = standardised(pool.z[:, :5] @ TOPIC_WEIGHTS[which])
    q = pool.latent("quality")
    return standardised(topics * pool.latent("sentiment") + 0.8 * (q**2 - 1) + (0.3, 0.2)[which] * topics)


def logit_of(e: Floats, eps: float) -> Floats:
    """The log odds x at which eps + (1 − 2 eps) σ(x) is e."""
    p = (e - eps) / (1 - 2 * eps)
    return np.log(p / (1 - p))


def written_law(
    pool: Pool,
    *,
    index: Callable[[Pool, int], Floats] = linear,
    scale: float = 1.2,
    eps: float = 0.1,
    base: float = BASE,
    normals: tuple[Normal, ...] = (),
) -> Law:
    """e = eps + (1 − 2 eps) σ(scale · f), logit m_t = base + .8 g + t · .5, f and g indices of the words."""
    gain = np.full(len(pool), GAIN)
    return Law(scale * index(pool, 0), base + 0.8 * index(pool, 1), gain, eps, normals)


def near_violation(pool: Pool) -> Law:
    """D4: the 5 % of the texts with the lowest index have e from .002 to .009, the others .1 to .9."""
    law = written_law(pool)
    e = law.nuisances(np.arange(len(pool)), np.zeros(1), np.zeros(1))[0]
    rank = standardised(law.exposure).argsort().argsort() / len(pool)
    e = np.where(rank < 0.05, 0.002 + 0.007 * rank / 0.05, e)
    return replace(law, exposure=logit_of(e, 0.001), eps=0.001)


def instrument_like(pool: Pool) -> Law:
    """D6: half of the variance of the exposure's log odds is a topic direction uncorrelated with the click's words."""
    g = linear(pool, 1)
    other = standardised(pool.z[:, :5] @ np.array([-0.2, 0.1, 0.9, -1.0, 0.8]))
    design = np.column_stack([np.ones(len(pool)), g])
    other = standardised(other - design @ np.linalg.lstsq(design, other, rcond=None)[0])
    return replace(written_law(pool), exposure=1.2 * (g + other) / np.sqrt(2))


def heterogeneous(pool: Pool) -> Law:
    """D7: tau uniform with mean .08 and sd .08 (a fifth of the texts below 0), by sentiment × topic and quality."""
    law = written_law(pool)
    m0 = 0.32 + 0.08 * np.tanh(linear(pool, 1))
    score = curved(pool, 1) + 0.8 * pool.latent("quality")
    tau = 0.08 * (1 + np.sqrt(3) * (2 * (score.argsort().argsort() + 0.5) / len(pool) - 1))
    return replace(law, click=logit_of(m0, 0.0), effect=logit_of(m0 + tau, 0.0) - logit_of(m0, 0.0))


def popular(pool: Pool, share: Floats) -> Law:
    """D16: rows draw items by `share`, whose logarithm (a seen column) acts on exposure (.4 a standard deviation) and clicks (.3)."""
    fame = np.log(share) - share @ np.log(share)
    fame /= np.sqrt(share @ fame**2)
    law = written_law(pool)
    known = {"log_popularity": fame}
    return replace(
        law, exposure=law.exposure + 0.4 * fame, click=law.click + 0.3 * fame, share=share, known=known
    )
