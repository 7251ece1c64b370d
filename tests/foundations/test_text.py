"""Cleaning, near-duplicates, quality rules, BPE and n-grams, against independent references."""

import json
import unicodedata

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from helpers import data
from helpers.foundations import text

SAMPLE = ("The banana bandana of Ana, 1234 times: na na na!\n\n  Café — aaaa aaaaa bbb.\t" * 30
          ).encode()


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


@pytest.fixture(scope="module")
def library():
    tokenizer = Tokenizer(models.BPE())
    blank = r"\t\n\r\f\v "
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(
        rf" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9{blank}]+|[{blank}]+"), "isolated")
    tokenizer.train_from_iterator([SAMPLE.decode("latin-1")], trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=[chr(i) for i in range(256)], show_progress=False))
    return tokenizer


def test_bpe_merges_are_the_librarys(library):
    number = library.get_vocab()
    theirs = [(number[a], number[b]) for a, b in json.loads(library.to_str())["model"]["merges"]]
    assert text.bpe_train(SAMPLE, 256 + len(theirs)) == theirs


@pytest.mark.parametrize("tried", [
    SAMPLE, b"a", b"aaaaaaa", b"na na", b"\x00\xff\xc3\xa9", bytes(range(256)) * 2, b"\n\n \t x"])
def test_bpe_encodes_as_the_library_and_decodes_back(library, tried):
    merges = text.bpe_train(SAMPLE, len(library.get_vocab()))
    ids = text.bpe_encode(tried, merges)
    assert ids.tolist() == library.encode(tried.decode("latin-1")).ids
    assert text.bpe_decode(ids, merges) == tried


@pytest.mark.parametrize(("short", "merges"), [(b"", 0), (b"a", 0), (b"a b", 1), (b"abc", 2)])
def test_training_stops_when_each_piece_is_one_token(short, merges):
    found = text.bpe_train(short, 300)
    assert len(found) == merges
    assert text.bpe_decode(text.bpe_encode(short, found), found) == short


def test_no_text_is_no_tokens():
    ids = text.bpe_encode(b"", [(97, 98)])
    assert ids.dtype == np.int64
    assert len(ids) == 0
    assert text.bpe_decode(ids, [(97, 98)]) == b""


def test_without_merges_tokens_are_bytes():
    assert text.bpe_encode(b"caf\xc3\xa9", []).tolist() == [99, 97, 102, 195, 169]
    assert text.bpe_train(SAMPLE, 256) == []


@pytest.mark.parametrize(("ids", "expected"), [
    ([5, 5, 5], [9, 5]), ([5, 5, 5, 5], [9, 9]), ([5, 5, 1, 5, 5, 5, 5, 5], [9, 1, 9, 9, 5]),
    ([5], [5]), ([1, 2], [1, 2])])
def test_a_pair_of_equal_tokens_is_merged_from_the_left_without_overlap(ids, expected):
    merged, piece = text.merge_pair(np.array(ids), np.zeros(len(ids), dtype=int), (5, 5), 9)
    assert merged.tolist() == expected
    assert len(piece) == len(expected)


def test_a_merge_does_not_cross_pieces():
    merged, piece = text.merge_pair(np.array([1, 2, 1, 2]), np.array([0, 1, 1, 1]), (1, 2), 9)
    assert merged.tolist() == [1, 2, 9]
    assert piece.tolist() == [0, 1, 1]


def test_ngram_probabilities_sum_to_one():
    train = np.random.default_rng(4).integers(0, 5, 200)
    for order in (1, 2, 3):
        context = [3, 1][:order - 1]
        p = [np.exp(-text.ngram_loss(train, np.array([*context, t]), 5, order)) for t in range(5)]
        assert sum(p) == pytest.approx(1)


def test_ngram_loss_by_hand():
    train, test = np.array([0, 1, 0, 1, 1]), np.array([1, 0])
    unigram = (2 + 2 * 0.5) / (5 + 2)  # of 0: 2 of 5 tokens; two different ones follow "nothing"
    assert text.ngram_loss(train, test, 2, order=2) == pytest.approx(
        -np.log((1 + 2 * unigram) / (2 + 2)))  # 1 is followed by 0 and by 1, once each
    assert text.ngram_loss(train, np.array([0, 1]), 2, order=2) == pytest.approx(
        -np.log((2 + 1 * (1 - unigram)) / (2 + 1)))  # 0 is followed by 1 twice


def test_ngram_windows_are_scored_each_on_its_own():
    rng = np.random.default_rng(6)
    train, windows = rng.integers(0, 4, 300), rng.integers(0, 4, (3, 20))
    alone = [text.ngram_loss(train, w, 4, order=3) for w in windows]
    assert text.ngram_loss(train, windows, 4, order=3) == pytest.approx(np.mean(alone))


def test_an_ngram_of_the_right_order_finds_a_chains_entropy():
    rng, chain = np.random.default_rng(5), [0]
    flips = rng.random(60_000) < 0.1
    for flip in flips:
        chain.append(chain[-1] ^ int(flip))
    chain = np.array(chain)
    entropy = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert text.ngram_loss(chain[:50_000], chain[50_000:], 2, order=2) == pytest.approx(
        entropy, rel=0.04)


def test_an_ngram_needs_a_text_of_its_length():
    for train, test in ((np.arange(2), np.arange(9)), (np.arange(9), np.arange(2))):
        with pytest.raises(ValueError, match="3 tokens or more"):
            text.ngram_loss(train, test, 9, order=3)


def test_codes_that_would_overflow_are_refused():
    with pytest.raises(ValueError, match="overflow"):
        text.ngram_loss(np.arange(9), np.arange(9), 50_000, order=5)
