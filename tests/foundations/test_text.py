"""Cleaning, near-duplicates, quality rules: against independent references."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import data
from helpers.foundations import text

often = settings(max_examples=40, deadline=None, derandomize=True)
WEB = st.lists(st.sampled_from([
    "<", ">", "&", ";", "b", "<b>", "</p>", "<a href='x'>", "lt", "amp;", "&lt;", "&gt;", "&amp;",
    "&#38;", "&#x3c;", "&nbsp;", "&shy;", "&#769;", "&#824;", "&quot;", "e", "\u0301", "\u0338",
    "\x00", "\u00ad", "\u200b", "\u037e", "\ud83d", "\ude00", "\ufffe", "\r", "\n", "\r\n",
    "\u2028", " ", "\t", "All rights", " reserved", '"', "=", "<!--", "-->", "x"]), max_size=14)


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
    ("&lt;b&gt;", "&lt;b&gt;"),  # a text about a tag
    ("<p>Use &lt;b&gt; &amp; &eacute;.</p>", "Use &lt;b&gt; & é."),
    ("&amp;lt; AT&amp;T 3 &lt; 4", "&amp;lt; AT&T 3 < 4"),
    ("a<b and c>d", "a<b and c>d"),
    ("vector<int> <j@x.org> x<y then <i>z</i>", "vector<int> <j@x.org> x<y then z"),
    ("<A HREF=x title='2 > 1'>go</A ><!-- no --><script async src=y></script>", "go"),
    ("&nosuch; &copy=2 &notit;", "&nosuch; &copy=2 &notit;"),
    ("e<b>\u0301</b> e\u200b\u0301 &lt;&#824;", "é é ≮"),
    ("a\ud83d\ude00b\ud800c", "a😀b\ufffdc"),
    ("<<b>b>", "<<b>b>"),  # nothing that cleaning put together is taken for markup
])
def test_clean_makes_one_spelling(dirty, expected):
    assert text.clean(dirty) == expected


def test_cleaning_twice_changes_nothing_more():
    for document in data.prose()[::60]:
        once = text.clean(document)
        assert text.clean(once) == once
        assert unicodedata.is_normalized("NFC", once)


@often
@given(st.one_of(WEB.map("".join), st.text(st.characters(), max_size=60)))
def test_any_text_is_clean_after_one_cleaning(dirty):
    once = text.clean(dirty)
    assert text.clean(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once.encode().decode() == once  # no half of a surrogate pair
    assert not any(unicodedata.category(sign) == "Cc" and sign != "\n" for sign in once)


@often
@given(st.text("ab<> &;1.,", max_size=40).filter(lambda t: "<a>" not in t and "<b>" not in t))
def test_a_text_without_markup_keeps_all_but_its_white_space(plain):
    assert text.clean(plain).split() == plain.split()


@often
@given(st.text("<b>&;ltamp ", max_size=30))
def test_what_html_escapes_never_becomes_markup(plain):
    shown = text.html.escape(plain)
    again = text.html.unescape(text.clean(shown))
    assert again.split() == text.html.unescape(shown).split()


@pytest.mark.parametrize("unit", ["<", "&lt;", "<a b=", " \n", "<<b>"])
def test_the_time_of_cleaning_grows_as_the_text_does(unit):
    def seconds(n):
        best = []
        for _ in range(3):
            start = time.process_time()
            text.clean(unit * (n // len(unit)))
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(20_000) < 10 * seconds(5_000)  # as its square: 16 times


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


@pytest.mark.parametrize("kind", text.JUNK)
def test_junk_of_an_empty_text_is_empty(kind):
    assert text.junk(kind, "", np.random.default_rng(0)) == ""


def test_a_text_without_words_has_quality_zero_and_passages_none():
    assert text.quality("") == {"letters": 0, "word_length": 0, "stop_words": 0, "fresh": 1}
    assert text.passages(["", "short"])[1].dtype == np.int64
    assert text.edit("", 1.0, ["new"], np.random.default_rng(0)) == "new"
    assert text.jaccard_pairs([[1, 1, 2], [1, 2, 2]]) == {(0, 1): 1.0}  # sets, whatever repeats


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: text.clean(b"x"), "clean: text.*expected str, got bytes"),
    (lambda: text.passages("one text"), "documents.*expected a list, got str"),
    (lambda: text.passages(["x"], 0), "n_words=0: expected a whole number ≥ 1"),
    (lambda: text.shingles("a b", 0), "n_words=0"),
    (lambda: text.shingles("a b", 2.0), "n_words=2.0: expected a whole number"),
    (lambda: text.soil("x", "mud"), "kind='mud': expected one of 'decomposed accents'"),
    (lambda: text.junk("mud", "x", RNG), "kind='mud': expected one of 'numbers'"),
    (lambda: text.minhash([], [1], [0]), "sets.*expected at least 1"),
    (lambda: text.minhash([[]], [1], [0]), "sets.*at least 1, got 0, at index 0"),
    (lambda: text.minhash([[2**40]], [1], [0]), "sets.*whole numbers"),
    (lambda: text.minhash([[1]], [0], [0]), "slope.*≥ 1"),
    (lambda: text.minhash([[1]], [1, 2], [0]), "equal lengths, got slope 2, shift 1"),
    (lambda: text.candidate_pairs([1, 2], 1), "signatures.*2-d"),
    (lambda: text.candidate_pairs([[np.nan, 2.0]], 1), "signatures.*whole numbers"),
    (lambda: text.edit("x", 1.5, ["new"], RNG), "rate=1.5: expected a finite number ≥ 0 and ≤ 1"),
    (lambda: text.edit("x", 0.5, [], RNG), "words.*at least one word"),
    (lambda: text.edit("x", 0.5, "new", RNG), "words.*list of words, got str"),
    (lambda: text.edit("x", 0.5, ["new"], 0), "rng=0: expected Generator, got int"),
    (lambda: text.passes("x", {"length": (0, 1)}), "limits.*expected one of 'letters'"),
    (lambda: text.passes("x", {"letters": (1, np.nan)}), "letters: expected .low, high."),
])
def test_what_makes_no_sense_is_refused_by_name(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
