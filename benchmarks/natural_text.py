"""Natural texts (headlines, book titles) whose confounders are functions of their words; how rows meet texts and users.

An index of a text is the capped, weighted count of a list's words in it. Exposure and clicks follow different
combinations of the indices, with a product and a threshold each: the words determine both exactly, but no
general-purpose representation was built to say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr
from vocab_text import Law, Normal, Pool, encoded, standardised

from causalrec import datasets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONTROLS = ("prior_click_1", "prior_click_2")
DECAY, CARRY_EXPOSURE, CARRY_CLICK = 0.5, 0.5, 0.3  # of earlier exposures: per row, on either log odds
CAP = 2.5  # the most that one list may count in a text
LIGHT = 0.6  # weight of the second half of a list; the first half weighs 1

HEADLINE_WORDS = {
    "delight": "amazing awesome beautiful hilarious funny brilliant adorable incredible perfect love happy best "
    "great cool inspiring cute wonderful fantastic stunning gorgeous joy laugh smile sweet proud epic fun heart "
    "hope delight favorite brave",
    "distress": "wrong bad awful hate death rape worst die war crazy scary sad violence disturbing horrible "
    "terrible shocking sick killed hurt fear angry cry tears suicide abuse afraid dead victims destroy ridiculous "
    "worse mad terrifying",
    "address": "your you're yourself you'll you've you'd yours ya",
    "groups": "women gay black men white girls female feminist racist american straight lesbian racism male gender "
    "muslim latino transgender immigrants boys ladies americans sexist feminism asian christian native stereotypes "
    "homophobia",
    "power": "money wage president pay government companies company rights bill congress law obama senator state "
    "states political politicians jobs job workers vote rich poor tax billion million industry corporate court "
    "business minimum poverty economy republicans bank",
    "body": "body food health sex water eat cancer brain disease doctor doctors sleep birth pregnant drug healthy "
    "abortion ebola depression skin sick mental hair cigarettes smoking vaccine hospital medical eating face hands "
    "eyes fat",
    "kin": "kids kid mom dad parents children child girl boy family baby mother son daughter school teacher students "
    "wife father moms dads sister brother grandma babies teen teens college teachers married marriage friends",
}
BOOK_WORDS = {
    "dark": "dark death night dead blood vampire black shadow midnight darkness murder ghost grave bone bones demon "
    "fallen evil kill killing devil hell fear witch shadows fever lost wicked hidden",
    "love": "love heart kiss beautiful girl girls wife woman women lover perfect sweet forever marriage lady "
    "beauty passion sex sisters daughter rose summer bride wedding mother miss",
    "realm": "king queen lord dragon magic sword prince princess throne kingdom knight dragons gods empire legend "
    "realms castle wizard apprentice tower wheel crown lords god angel angels quest chronicles",
    "world": "world history american war city america country science universe sea earth road island river street "
    "house home land north south mountain sky water moon sun star",
    "life": "life story stories guide book memoir diary tales my me i how what why you your autobiography letters "
    "art poems essays little",
    "series": "trilogy chronicles saga vol volume cycle series book adventures files diaries universe discworld "
    "club novels collection complete harry novel",
}
# weights of the indices in (exposure, click); then (first, second, weight) of a product
HEADLINE_LAW = {
    "delight": (0.7, 0.4), "distress": (-0.3, 0.6), "address": (0.8, 0.3), "groups": (0.5, 0.8),
    "power": (-0.7, -0.6), "body": (0.3, -0.2), "kin": (0.4, 0.5),
}  # fmt: skip
BOOK_LAW = {
    "dark": (0.7, 0.6), "love": (0.6, 0.8), "realm": (-0.3, 0.5), "world": (-0.6, -0.5),
    "life": (0.4, -0.2), "series": (0.7, 0.3),
}  # fmt: skip


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, with straight apostrophes."""
    return re.findall(r"[a-z']+", text.lower().replace("’", "'"))


def index(texts: list[str], listed: str) -> Floats:
    """``(m,)`` min(CAP, sum of the weights of a list's words in the text)."""
    words = listed.split()
    weight = {w: 1.0 if i < len(words) / 2 else LIGHT for i, w in enumerate(words)}
    return np.array([min(CAP, sum(weight.get(w, 0.0) for w in words_of(t))) for t in texts])


def hit_rates(texts: list[str], lists: dict[str, str]) -> dict[str, float]:
    """Share of the texts in which each list has a word."""
    return {name: float((index(texts, listed) > 0).mean()) for name, listed in lists.items()}


@cache
def headline_pool() -> Pool:
    """The 12,387 distinct headlines; z is their standardised indices and ``exposure`` and ``click``."""
    titles = datasets.load_upworthy()["headline"].dropna()
    return _pool(list(dict.fromkeys(titles)), HEADLINE_WORDS, HEADLINE_LAW, ("address", "groups", "kin"))


@cache
def book_pool() -> Pool:
    """The 9,964 distinct book titles; z as in ``headline_pool``."""
    titles = datasets.load_goodbooks()["title"].dropna()
    return _pool(list(dict.fromkeys(titles)), BOOK_WORDS, BOOK_LAW, ("series", "love", "dark"))


def _pool(
    texts: list[str],
    lists: dict[str, str],
    law: dict[str, tuple[float, float]],
    special: tuple[str, str, str],
) -> Pool:
    """Indices and the two combinations of them that act.

    exposure = Σ w_k d_k + .35 d_a d_b + .6 · 1{d_c > 0};  click = Σ w'_k d_k + .35 d_a d_c + .6 · 1{d_b > 0},
    standardised, a, b and c being the `special` lists.
    """
    d = {name: standardised(index(texts, listed)) for name, listed in lists.items()}
    a, b, c = (d[name] for name in special)
    exposure = sum(w * d[k] for k, (w, _) in law.items()) + 0.35 * a * b + 0.6 * (c > 0)
    click = sum(w * d[k] for k, (_, w) in law.items()) + 0.35 * a * c + 0.6 * (b > 0)
    z = np.column_stack([*d.values(), standardised(exposure), standardised(click)])
    return encoded(texts, z, (*d, "exposure", "click"))


@cache
def some(pool_name: str, size: int, seed: int = 17) -> Pool:
    """A fixed random subset of the headlines or of the books."""
    pool = {"headlines": headline_pool, "books": book_pool}[pool_name]()
    if size >= len(pool):
        return pool
    return pool.take(np.sort(np.random.default_rng(seed).permutation(len(pool))[:size]))


def zipf(m: int, exponent: float = 1.0, shift: float = 0.0, seed: int = 5) -> Floats:
    """``(m,)`` shares p ∝ (rank + shift)^−exponent (Zipf; Mandelbrot where shift > 0), ranks dealt at random."""
    rank = np.random.default_rng(seed).permutation(m) + 1.0
    share = np.power(rank + shift, -exponent)
    return np.asarray(share / share.sum(), dtype=np.float64)


def exactly(m: int, n: int, rng: np.random.Generator) -> Ints:
    """``(n,)`` codes in random order in which every text has floor(n/m) or ceil(n/m) rows."""
    whole = np.tile(np.arange(m), n // m)
    return rng.permutation(np.concatenate([whole, rng.permutation(m)[: n % m]])).astype(np.int64)


def natural_law(
    pool: Pool,
    share: Floats | None = None,
    extra: tuple[Normal, ...] = (),
    of: str = "row",
    effect: float = 0.5,
) -> Law:
    """e = .05 + .9 σ(f_e − .1 + α'x), logit m_t = base + .9 f_y + β'x + t · effect, f_e and f_y functions of the words."""
    x = (Normal("x1", 0.25, 0.2, of), Normal("x2", -0.2, 0.2, of), Normal("x3", 0.15, -0.15, of))
    return Law(
        exposure=pool.latent("exposure") - 0.1,
        click=-1.25 + 0.9 * pool.latent("click"),
        effect=np.full(len(pool), effect),
        normals=x + extra,
        share=share,
    )


def hidden_cause(rho: float, of: str = "row") -> tuple[Normal, ...]:
    """D11: a normal on both log odds that correlates the two latent logistic errors by rho.

    rho = γ² / (γ² + π²/3), so that γ = √(π²/3 · rho / (1 − rho)) on each.
    """
    gamma = float(np.sqrt(np.pi**2 / 3 * rho / (1 - rho)))
    return (Normal("hidden", gamma, gamma, of, seen=False),) if rho else ()


def clustered(icc: float) -> tuple[Normal, ...]:
    """D8: a seen trait of the user on both; hidden moods of user and item on clicks, the user's with this latent ICC."""
    item_sd = 0.4
    user_sd = float(np.sqrt(icc / (1 - icc) * (np.pi**2 / 3 + item_sd**2)))
    return (
        Normal("past_ctr", 0.6, 0.6, "user"),
        Normal("user_mood", 0.0, user_sd, "user", seen=False),
        Normal("item_mood", 0.0, item_sd, "item", seen=False),
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """Who met what, and by which chances; ``(n,)`` each, normals by name."""

    user: Ints
    step: Ints
    item: Ints
    normals: dict[str, Floats]
    t: Ints
    e: Floats
    m0: Floats
    m1: Floats


def draw_rows(
    law: Law,
    n: int,
    rng: np.random.Generator,
    rows_per_user: tuple[int, int] = (1, 1),
    exact: bool = False,
    carry: bool = False,
) -> Rows:
    """Users, texts, normals and exposures of n rows; with `carry`, earlier exposures of a user act on later rows."""
    least, most = rows_per_user
    sizes = rng.integers(least, most + 1, -(-n // least))
    user = np.repeat(np.arange(len(sizes)), sizes)[:n]
    step = np.arange(n) - np.searchsorted(user, user)
    m = len(law.exposure)
    if exact:
        item = exactly(m, n, rng)
    elif law.share is None:
        item = rng.integers(0, m, n)
    else:
        item = np.searchsorted(np.cumsum(law.share), rng.random(n)).clip(max=m - 1).astype(np.int64)
    of = {"row": np.arange(n), "user": user, "item": item}
    normals = {v.name: rng.standard_normal(int(of[v.of].max()) + 1)[of[v.of]] for v in law.normals}
    a = sum((v.on_exposure * normals[v.name] for v in law.normals), np.zeros(n))
    b = sum((v.on_click * normals[v.name] for v in law.normals), np.zeros(n))
    u = rng.random(n)
    if carry:
        t, lift = _exposed_before(law, user, step, item, a, u)
        a, b = a + CARRY_EXPOSURE * lift, b + CARRY_CLICK * lift
    e, m0, m1 = law.nuisances(item, a, b)
    t = (u < e).astype(np.int64)
    return Rows(user, step, item, normals, t, e, m0, m1)


def _exposed_before(
    law: Law, user: Ints, step: Ints, item: Ints, a: Floats, u: Floats
) -> tuple[Ints, Floats]:
    """Exposures in the users' order of rows, and what carries over: s_k = decay · (s_{k−1} + T_{k−1}), s_0 = 0."""
    lift, t = np.zeros(len(user)), np.zeros(len(user), dtype=np.int64)
    state = np.zeros(int(user.max()) + 1)
    for k in range(int(step.max()) + 1):
        now = np.flatnonzero(step == k)
        lift[now] = state[user[now]]
        e, _, _ = law.nuisances(item[now], a[now] + CARRY_EXPOSURE * lift[now], a[now])
        t[now] = u[now] < e
        state[user[now]] = DECAY * (lift[now] + t[now])
    return t, lift


def carried_truth(law: Law, rows_per_user: tuple[int, int], parts: int = 10) -> dict[str, float]:
    """Means over parts × 200,000 rows, for chances that depend on a user's past."""
    rows = [
        draw_rows(law, 200_000, np.random.default_rng([7, k]), rows_per_user, carry=True)
        for k in range(parts)
    ]
    return means(np.concatenate([r.e for r in rows]), np.concatenate([r.m1 - r.m0 for r in rows]))


def means(e: Floats, tau: Floats) -> dict[str, float]:
    """ATE, ATT and ATO of rows with these propensities and effects."""
    ato = np.average(tau, weights=e * (1 - e))
    return {"ate": float(tau.mean()), "att": float(np.average(tau, weights=e)), "ato": float(ato)}


def seen_indices(law: Law, rows: Rows) -> tuple[Floats, Floats]:
    """``(n,)`` log odds of exposure (before the bound) and of a click untreated, as far as seen causes make them."""
    seen = [v for v in law.normals if v.seen]
    a = sum((v.on_exposure * rows.normals[v.name] for v in seen), law.exposure[rows.item])
    return a, sum((v.on_click * rows.normals[v.name] for v in seen), law.click[rows.item])


def seen_means(law: Law, item: Ints, index: Floats) -> dict[str, Floats]:
    """E[Y | T=t, observed causes] where every hidden normal acts on clicks alone."""
    hidden = [v for v in law.normals if not v.seen]
    if not hidden or any(v.on_exposure for v in hidden):
        return {}
    sd = float(np.sqrt(sum(v.on_click**2 for v in hidden)))
    x, w = np.polynomial.hermite_e.hermegauss(9)
    w = w / w.sum()
    effect = law.effect[item]
    m0 = sum(wi * expit(index + sd * xi) for xi, wi in zip(x, w, strict=True))
    m1 = sum(wi * expit(index + sd * xi + effect) for xi, wi in zip(x, w, strict=True))
    return {"m0_seen": m0, "m1_seen": m1}


def prior_clicks(law: Law, rows: Rows, index: Floats, rng: np.random.Generator) -> dict[str, Ints]:
    """Two earlier clicks: the words and the hidden causes act on them as on the click, a little rarer; T does not."""
    hidden = sum((v.on_click * rows.normals[v.name] for v in law.normals if not v.seen), np.zeros(len(index)))
    chances = (expit(0.8 * index - 0.3 + hidden), expit(0.6 * index - 0.6 + hidden))
    return {
        name: (rng.random(len(p)) < p).astype(np.int64) for name, p in zip(CONTROLS, chances, strict=True)
    }


def marked(rows: Rows, leak: float, m: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Text codes in the marked pool, and P(T=1 | text with its marker); P(marker | T) = Φ(±leak / 2)."""
    yes = ndtr(leak / 2)
    marker = rng.random(len(rows.t)) < np.where(rows.t == 1, yes, 1 - yes)
    like1, like0 = np.where(marker, yes, 1 - yes), np.where(marker, 1 - yes, yes)
    return rows.item + m * marker, rows.e * like1 / (rows.e * like1 + (1 - rows.e) * like0)
