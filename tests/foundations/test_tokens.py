"""BPE against the library `tokenizers`; n-grams by hand and against a chain's entropy."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from helpers.foundations import tokens

SAMPLE = ("The banana bandana of Ana, 1234 times: na na na!\n\n  Café — aaaa aaaaa bbb.\t" * 30
          ).encode()
often = settings(max_examples=40, deadline=None, derandomize=True)


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


@often
@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(256, 280))
def test_any_bytes_come_back_under_any_merges(learnt_from, tried, vocab):
    merges = tokens.bpe_train(learnt_from, vocab)
    ids = tokens.bpe_encode(tried, merges)
    assert ids.max(initial=0) < 256 + len(merges) <= vocab
    assert tokens.bpe_decode(ids, merges) == tried
    assert len(ids) <= len(tried)


@often
@given(st.lists(st.integers(0, 3), min_size=3, max_size=40),
       st.lists(st.integers(0, 3), min_size=3, max_size=20), st.integers(1, 3))
def test_an_ngrams_loss_does_not_depend_on_the_integer_type_and_lies_above_0(train, test, order):
    losses = {tokens.ngram_loss(np.array(train, kind), np.array(test, kind), 4, order)
              for kind in (np.uint8, np.int16, np.int64)}
    assert len(losses) == 1
    assert 0 <= losses.pop() < np.inf


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64])
def test_ids_keep_their_type_and_place(kind):
    ids = np.arange(200).astype(kind)
    assert tokens.token_ids()(ids) is ids
    assert tokens.token_ids(below=200)(ids) is ids
    with pytest.raises(ValueError, match="whole numbers ≥ 0 < 199, got 199"):
        tokens.token_ids(below=199)(ids)


def test_bytes_and_tensors_are_ids_too():
    assert tokens.token_ids()(b"ab").tolist() == [97, 98]
    assert tokens.token_ids()([]).dtype == np.int64
    assert tokens.ngram_loss(b"abab" * 9, b"abab", 256, 2) < 1
    assert tokens.bpe_decode(torch.tensor([97, 256]), [(98, 99)]) == b"abc"


def test_merging_neither_wraps_nor_writes_where_it_must_not():
    fixed = np.array([1, 2, 1, 2])
    fixed.flags.writeable = False
    merged, _ = tokens.merge_pair(fixed, np.zeros(4, dtype=int), (1, 2), 9)
    assert (merged.tolist(), fixed.tolist()) == ([9, 9], [1, 2, 1, 2])
    with pytest.raises(ValueError, match="an integer type that holds the new id"):
        tokens.merge_pair(np.array([1, 2], np.uint8), np.zeros(2, dtype=int), (1, 2), 256)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: tokens.bpe_train("text", 300), "expected bytes, such as text.encode.., got str"),
    (lambda: tokens.bpe_train(b"text", 255), "vocab=255: expected a whole number ≥ 256"),
    (lambda: tokens.bpe_encode("text", []), "expected bytes, such as text.encode.., got str"),
    (lambda: tokens.bpe_encode(b"text", [(300, 97)]), "merge 0 is .300, 97.: expected ids from 0"),
    (lambda: tokens.bpe_encode(b"text", [(97, 257), (97, 98)]), "merge 0 is .97, 257."),
    (lambda: tokens.bpe_encode(b"text", [(97, -1)]), "merge 0 is .97, -1."),
    (lambda: tokens.bpe_encode(b"text", [(97, 98, 99)]), "expected pairs of token ids"),
    (lambda: tokens.bpe_encode(b"text", [(97, 98.5)]), "expected pairs of token ids"),
    (lambda: tokens.bpe_decode([-1], []), "ids.*whole numbers ≥ 0, got -1"),
    (lambda: tokens.bpe_decode([97, 256], []), "expected ids below 256 . merges"),
    (lambda: tokens.bpe_decode([97.0], []), "ids.*got float64"),
    (lambda: tokens.bpe_decode([[97]], []), r"ids.*1-d.*got shape \(1, 1\)"),
    (lambda: tokens.as_pieces(["a"]), "expected bytes.*at index 0"),
    (lambda: tokens.merge_pair([1, 2], [0], (1, 2), 9), "equal lengths, got ids 2, piece 1"),
    (lambda: tokens.merge_pair([1, 2], [0, 0], (1, 2, 3), 9), "pair"),
    (lambda: tokens.ngram_loss([0, 1, 4], [0, 1, 2], 4), "expected ids below vocab"),
    (lambda: tokens.ngram_loss([0, 1, 2], [0, 1, 4], 4), "expected ids below vocab"),
    (lambda: tokens.ngram_loss([0, 1, -1], [0, 1, 2], 4), "train.*≥ 0, got -1"),
    (lambda: tokens.ngram_loss([0, 1, 2], [0, 1, 2], 4, 0), "order=0: expected a whole number"),
    (lambda: tokens.ngram_loss([0, 1, 2], [0.0, 1, 2], 4), "test.*got float64"),
    (lambda: tokens.ngram_loss([0, 1, 2], np.zeros((0, 9), int), 4), "test.*at least 1, got 0"),
])
def test_what_makes_no_sense_is_refused_by_name(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
