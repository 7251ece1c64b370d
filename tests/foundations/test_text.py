"""Cleaning, near-duplicates, quality rules: against independent references."""

import unicodedata

import numpy as np
import pytest

from helpers import data
from helpers.foundations import text


def random_hashes(m, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, text.PRIME, m), rng.integers(0, text.PRIME, m)


def test_every_speech_has_a_year_in_order():
    years = data.prose_years()
    assert len(years) == len(data.prose())
    assert (np.diff(years) >= 0).all()
    assert (years[0], years[-1]) == (1790, 2026)


def test_passages_have_the_same_words_in_order_and_drop_the_rest():
    cut, owner = text.passages(["a b c d e", "f", "g h"], n_words=2)
    assert cut == ["a b", "c d", "g h"]
    assert owner.tolist() == [0, 0, 2]
    assert text.passages([""], n_words=2)[0] == []


@pytest.mark.parametrize(("dirty", "expected"), [
    ("", ""),
    ("cafe\u0301", "café"),
    ("a\x00b\u200bc\u00add", "abcd"),
    ("a\tb  c\xa0d \r\n e", "a b c d\ne"),
    ("<p class='x'>one &amp; two</p><br/>", "one & two"),
    ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
    ("keep\nAll rights reserved. 2020", "keep"),
    ("a\n\n\n\n\nb", "a\n\nb"),
    ("a\rb\x0cc\x85d\u2028e", "a\nb\nc\nd\ne"),
    ("All rights reserved to the States.\nkeep", "keep"),
])
def test_clean_makes_one_spelling(dirty, expected):
    assert text.clean(dirty) == expected


def test_cleaning_twice_changes_nothing_more():
    for document in data.prose()[::60]:
        once = text.clean(document)
        assert text.clean(once) == once
        assert unicodedata.is_normalized("NFC", once)


@pytest.mark.parametrize("kind", text.DIRT)
def test_all_planted_dirt_but_wrong_decoding_is_removed(kind):
    dirty, wanted = text.soil("One of the many, many words.\n\nAnd of the others.", kind)
    assert dirty != wanted
    assert (text.clean(dirty) == text.clean(wanted)) == (kind != "wrong decoding")


def test_shingles_ignore_case_and_punctuation_and_are_distinct():
    one, other = (text.shingles(t) for t in ("To be, or not to be", "to BE or not to be!"))
    assert np.array_equal(one, other)
    assert len(text.shingles("a b c d e f")) == 2
    assert len(text.shingles("a a a a a a a a")) == 1
    assert len(text.shingles("")) == len(text.shingles("one two")) == 1
    found = text.shingles("a longer text of quite a few words")
    assert found.min() >= 0
    assert found.max() < text.PRIME


@pytest.mark.parametrize("shared", [0, 10, 50, 100])
def test_minhash_agreement_is_the_jaccard_similarity(shared):
    pool = np.random.default_rng(1).integers(0, text.PRIME, 200 - shared)
    signatures = text.minhash([pool[:100], pool[-100:]], *random_hashes(4000))
    s = shared / (200 - shared)
    error = np.equal(*signatures).mean() - s
    assert abs(error) <= 4 * np.sqrt(s * (1 - s) / 4000)


def test_minhash_does_not_overflow():
    largest = np.array([text.PRIME - 1])
    signature = text.minhash([largest], largest, largest)
    assert signature[0, 0] == (int(largest[0]) * int(largest[0]) + int(largest[0])) % text.PRIME


def test_candidates_agree_in_a_whole_band():
    signatures = np.array([[1, 2, 3, 4], [1, 2, 8, 9], [7, 2, 3, 4], [5, 6, 7, 8]])
    assert text.candidate_pairs(signatures, bands=2) == {(0, 1), (0, 2)}
    assert text.candidate_pairs(signatures, bands=1) == set()
    assert text.candidate_pairs(signatures, bands=4) == {(0, 1), (0, 2), (1, 2)}
    assert text.candidate_pairs(signatures[:1], bands=2) == set()


@pytest.mark.parametrize("bands", [0, 5])
def test_bands_without_a_row_are_refused(bands):
    with pytest.raises(ValueError, match="columns"):
        text.candidate_pairs(np.arange(8).reshape(2, 4), bands)


def test_exact_jaccard_is_that_of_python_sets():
    rng = np.random.default_rng(2)
    sets = [np.unique(rng.integers(0, 30, 12)) for _ in range(15)]
    found = text.jaccard_pairs(sets)
    for i in range(15):
        for j in range(i + 1, 15):
            a, b = set(sets[i].tolist()), set(sets[j].tolist())
            assert found.get((i, j), 0) == pytest.approx(len(a & b) / len(a | b))


def test_an_edit_changes_about_the_asked_share_of_words():
    rng, original = np.random.default_rng(3), " ".join(f"w{i}" for i in range(2000))
    changed = text.edit(original, 0.1, ["new"], rng).split(" ")
    assert len(changed) == 2000
    assert 0.07 < np.mean([word == "new" for word in changed]) < 0.13
    assert text.edit(original, 0.0, ["new"], rng) == original


def test_quality_of_known_texts():
    found = text.quality("the cat and the dog 12")
    assert found["letters"] == pytest.approx(15 / 17)
    assert found["word_length"] == pytest.approx(3)
    assert found["stop_words"] == pytest.approx(3 / 5)
    assert found["fresh"] == 1
    assert text.quality("one two " * 50)["fresh"] < 0.05
    assert text.quality("")["letters"] == 0


def test_a_text_passes_if_all_measures_lie_inside():
    assert text.passes("the cat and the dog", {"letters": (0.9, 1), "stop_words": (0.5, 1)})
    assert not text.passes("the cat and the dog", {"letters": (0.9, 1), "stop_words": (0, 0.5)})


JUNK = {"numbers": ("letters", 0.1), "random letters": ("stop_words", 0.2),
        "one phrase again": ("fresh", 0.2), "keyword list": ("stop_words", 0)}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_odd_in_the_measure_it_was_made_for(kind):
    passage = text.passages(data.prose()[50:51])[0][0]
    measure, most = JUNK[kind]
    found = text.junk(kind, passage, np.random.default_rng(6))
    assert text.quality(found)[measure] <= most < text.quality(passage)[measure]


def test_shuffled_words_are_the_same_words():
    passage = text.passages(data.prose()[50:51])[0][0]
    found = text.junk("shuffled words", passage, np.random.default_rng(7))
    assert sorted(found.split()) == sorted(passage.split())
    assert found.split() != passage.split()
