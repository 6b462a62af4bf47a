from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from causalrec.errors import CausalRecWarning
from causalrec.represent.cache import VectorCache, default_folder, text_key

WIDTH = 8


def keys_of(*texts: str) -> list[bytes]:
    return [text_key(t) for t in texts]


def vectors_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> VectorCache:
    return VectorCache(tmp_path / "not yet there", "model@1 mean")


def shards(cache: VectorCache) -> list[Path]:
    return sorted(cache.folder.glob("*.shard"))


def test_what_was_appended_is_found_in_the_order_asked_for(cache: VectorCache) -> None:
    first, second = vectors_of(2), vectors_of(2, seed=1)
    assert cache.append(keys_of("a", "b"), first)
    assert cache.append(keys_of("c", "d"), second)
    rows, found = cache.lookup(keys_of("d", "missing", "a", "c"))
    assert rows.tolist() == [0, 2, 3]
    assert np.array_equal(found, np.stack([second[1], first[0], second[0]]))
    assert found.dtype == np.float32


def test_an_empty_cache_finds_nothing(cache: VectorCache) -> None:
    rows, found = cache.lookup(keys_of("a"))
    assert rows.shape == (0,)
    assert found.shape == (0, 0)


def test_fingerprints_do_not_share_vectors(tmp_path: Path) -> None:
    VectorCache(tmp_path, "one").append(keys_of("a"), vectors_of(1))
    assert len(VectorCache(tmp_path, "two").lookup(keys_of("a"))[0]) == 0
    assert len(VectorCache(tmp_path, "one").lookup(keys_of("a"))[0]) == 1


def flip_last_vector_byte(content: bytes) -> bytes:
    return content[:-17] + bytes([content[-17] ^ 1]) + content[-16:]


DAMAGE = {
    "one bit": flip_last_vector_byte,
    "half of it": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "header cut": lambda content: content[:20],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>quota exceeded</html>" * 10,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_shard_is_dropped_with_a_warning_and_the_others_stay(cache: VectorCache, damage) -> None:
    cache.append(keys_of("a"), vectors_of(1))
    bad = shards(cache)[0]
    cache.append(keys_of("b"), vectors_of(1, seed=1))
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.warns(
        CausalRecWarning, match=r"truncated or corrupt; it was removed, and its texts are encoded again"
    ):
        rows, found = cache.lookup(keys_of("a", "b"))
    assert rows.tolist() == [1]
    assert np.array_equal(found, vectors_of(1, seed=1))
    assert bad not in shards(cache)


def test_a_half_written_file_is_not_a_shard(cache: VectorCache) -> None:
    cache.append(keys_of("a"), vectors_of(1))
    (cache.folder / "killed.tmp").write_bytes(b"\x93NUMPY")
    assert cache.lookup(keys_of("a"))[0].tolist() == [0]


def test_a_folder_that_cannot_be_written_is_a_warning_and_no_loss(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = VectorCache(tmp_path / "file", "x")
    with pytest.warns(CausalRecWarning, match=r"cannot be cached in .*file.*Pass cache_dir="):
        assert not cache.append(keys_of("a"), vectors_of(1))
    assert len(cache.lookup(keys_of("a"))[0]) == 0


def test_many_writers_at_once_lose_nothing(cache: VectorCache) -> None:
    values = vectors_of(40)
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(lambda i: cache.append(keys_of(str(i % 30)), values[i % 30 : i % 30 + 1]), range(40))
        )
    assert all(done)
    rows, found = cache.lookup(keys_of(*map(str, range(30))))
    assert len(rows) == 30
    assert np.array_equal(found, values[:30])


def test_twenty_thousand_vectors_are_read_within_a_second(cache: VectorCache) -> None:
    n, width = 20_000, 384
    values = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    keys = keys_of(*map(str, range(n)))
    for start in range(0, n, 2048):
        cache.append(keys[start : start + 2048], values[start : start + 2048])
    taken = []
    for _ in range(3):
        start_time = time.perf_counter()
        rows, found = cache.lookup(keys)
        taken.append(time.perf_counter() - start_time)
    assert np.array_equal(found, values)
    assert len(rows) == n
    assert min(taken) < 1


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAUSALREC_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "embeddings"
    monkeypatch.delenv("CAUSALREC_CACHE")
    assert default_folder() == Path.home() / ".cache" / "causalrec" / "embeddings"


def test_a_lone_surrogate_has_a_key() -> None:
    assert len(text_key("\ud83d")) == 16
    assert text_key("a") != text_key("A")
