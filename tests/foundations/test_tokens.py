"""BPE against the library `tokenizers`; n-grams by hand and against a chain's entropy."""

import json

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from helpers.foundations import tokens

SAMPLE = ("The banana bandana of Ana, 1234 times: na na na!\n\n  Café — aaaa aaaaa bbb.\t" * 30
          ).encode()


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
    assert tokens.bpe_train(SAMPLE, 256 + len(theirs)) == theirs


@pytest.mark.parametrize("tried", [
    SAMPLE, b"a", b"aaaaaaa", b"na na", b"\x00\xff\xc3\xa9", bytes(range(256)) * 2, b"\n\n \t x"])
def test_bpe_encodes_as_the_library_and_decodes_back(library, tried):
    merges = tokens.bpe_train(SAMPLE, len(library.get_vocab()))
    ids = tokens.bpe_encode(tried, merges)
    assert ids.tolist() == library.encode(tried.decode("latin-1")).ids
    assert tokens.bpe_decode(ids, merges) == tried


@pytest.mark.parametrize(("short", "merges"), [(b"", 0), (b"a", 0), (b"a b", 1), (b"abc", 2)])
def test_training_stops_when_each_piece_is_one_token(short, merges):
    found = tokens.bpe_train(short, 300)
    assert len(found) == merges
    assert tokens.bpe_decode(tokens.bpe_encode(short, found), found) == short


def test_no_text_is_no_tokens():
    ids = tokens.bpe_encode(b"", [(97, 98)])
    assert ids.dtype == np.int64
    assert len(ids) == 0
    assert tokens.bpe_decode(ids, [(97, 98)]) == b""


def test_without_merges_tokens_are_bytes():
    assert tokens.bpe_encode(b"caf\xc3\xa9", []).tolist() == [99, 97, 102, 195, 169]
    assert tokens.bpe_train(SAMPLE, 256) == []


@pytest.mark.parametrize(("ids", "expected"), [
    ([5, 5, 5], [9, 5]), ([5, 5, 5, 5], [9, 9]), ([5, 5, 1, 5, 5, 5, 5, 5], [9, 1, 9, 9, 5]),
    ([5], [5]), ([1, 2], [1, 2])])
def test_a_pair_of_equal_tokens_is_merged_from_the_left_without_overlap(ids, expected):
    merged, piece = tokens.merge_pair(np.array(ids), np.zeros(len(ids), dtype=int), (5, 5), 9)
    assert merged.tolist() == expected
    assert len(piece) == len(expected)


def test_a_merge_does_not_cross_pieces():
    merged, piece = tokens.merge_pair(np.array([1, 2, 1, 2]), np.array([0, 1, 1, 1]), (1, 2), 9)
    assert merged.tolist() == [1, 2, 9]
    assert piece.tolist() == [0, 1, 1]


def test_ngram_probabilities_sum_to_one():
    train = np.random.default_rng(4).integers(0, 5, 200)
    for order in (1, 2, 3):
        context = [3, 1][:order - 1]
        p = [np.exp(-tokens.ngram_loss(train, np.array([*context, t]), 5, order)) for t in range(5)]
        assert sum(p) == pytest.approx(1)


def test_ngram_loss_by_hand():
    train, test = np.array([0, 1, 0, 1, 1]), np.array([1, 0])
    unigram = (2 + 2 * 0.5) / (5 + 2)  # of 0: 2 of 5 tokens; two different ones follow "nothing"
    assert tokens.ngram_loss(train, test, 2, order=2) == pytest.approx(
        -np.log((1 + 2 * unigram) / (2 + 2)))  # 1 is followed by 0 and by 1, once each
    assert tokens.ngram_loss(train, np.array([0, 1]), 2, order=2) == pytest.approx(
        -np.log((2 + 1 * (1 - unigram)) / (2 + 1)))  # 0 is followed by 1 twice


def test_ngram_windows_are_scored_each_on_its_own():
    rng = np.random.default_rng(6)
    train, windows = rng.integers(0, 4, 300), rng.integers(0, 4, (3, 20))
    alone = [tokens.ngram_loss(train, w, 4, order=3) for w in windows]
    assert tokens.ngram_loss(train, windows, 4, order=3) == pytest.approx(np.mean(alone))


def test_an_ngram_of_the_right_order_finds_a_chains_entropy():
    rng, chain = np.random.default_rng(5), [0]
    flips = rng.random(60_000) < 0.1
    for flip in flips:
        chain.append(chain[-1] ^ int(flip))
    chain = np.array(chain)
    entropy = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert tokens.ngram_loss(chain[:50_000], chain[50_000:], 2, order=2) == pytest.approx(
        entropy, rel=0.04)


def test_an_ngram_needs_a_text_of_its_length():
    for train, test in ((np.arange(2), np.arange(9)), (np.arange(9), np.arange(2))):
        with pytest.raises(ValueError, match="3 tokens or more"):
            tokens.ngram_loss(train, test, 9, order=3)


def test_codes_that_would_overflow_are_refused():
    with pytest.raises(ValueError, match="overflow"):
        tokens.ngram_loss(np.arange(9), np.arange(9), 50_000, order=5)
