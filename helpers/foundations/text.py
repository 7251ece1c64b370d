"""Raw text: cleaning, near-duplicates, quality rules, and junk and dirt to try them on."""

import html
import re
import unicodedata
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from html.entities import html5
from itertools import combinations

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, same_length

PRIME = 2**31 - 1  # products of two numbers below it fit into int64
STOP_WORDS = frozenset("the of and to in a that is be for it by which have as with this on are "
                       "our has been not from or will we their all at an they was but its".split())
UNSEEN = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]"  # no \n
TAGS = ("a abbr address area article aside audio b base big blockquote body br button canvas "
        "caption center cite code col colgroup dd del details dfn dialog dir div dl dt em embed "
        "fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header "
        "hr html i iframe img input ins kbd label legend li link main map mark menu meta nav "
        "noscript object ol optgroup option p param picture pre q s samp script section select "
        "small source span strike strong style sub summary sup svg table tbody td textarea tfoot "
        "th thead time title tr track tt u ul var video wbr").replace(" ", "|")
ALONE = "async|autoplay|checked|controls|defer|disabled|hidden|loop|multiple|muted|nowrap|selected"
MARKUP = re.compile(  # a tag with its attributes, a comment, an entity; none holds a further < or &
    rf"""</?(?:{TAGS})(?:\s+(?:[a-z][\w:.-]*\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>=`]+)|{ALONE}))*"""
    r"\s*/?>|<!--[^<]*?-->|<!doctype\b[^<>]*>|&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,31});",
    re.IGNORECASE | re.ASCII)
BOILERPLATE = ("Subscribe to our newsletter", "All rights reserved", "Accept all cookies")
DIRT = {  # kind: what it does to a text
    "decomposed accents": lambda t: unicodedata.normalize("NFD", t + " café, naïve, Güell"),
    "control characters": lambda t: t.replace("the ", "the\x00 ").replace("of ", "o\u00adf ", 3),
    "HTML remains": lambda t: "<p>" + t.replace("\n\n", "</p>\n\n<p>") + "<br/>&nbsp;</p>",
    "boilerplate lines": lambda t: t + "\n\nAll rights reserved. Accept all cookies",
    "white space": lambda t: t.replace("\n", " \r\n").replace(", ", ",  ", 9),
    "wrong decoding": lambda t: (t + " — é").encode("utf-8").decode("cp1252", "replace"),
}


@accepts(documents=rules.each(rules.text), n_words=rules.integer(1))
def passages(documents: list[str], n_words: int = 150) -> tuple[list[str], np.ndarray]:
    """Consecutive passages of `n_words` words, and the document each one comes from.

    What is left at the end of a document is dropped.
    """
    cut, owner = [], []
    for number, document in enumerate(documents):
        words = document.split(" ")
        for start in range(0, len(words) - n_words + 1, n_words):
            cut.append(" ".join(words[start : start + n_words]))
            owner.append(number)
    return cut, np.array(owner, dtype=np.int64)


@accepts(text=rules.a(str))
def clean(text: str) -> str:
    """One spelling per text: no tags, entities, control signs or boilerplate; NFC; single spaces.

    NFC writes an accented letter as one code point (Unicode Standard Annex 15). Each kind of line
    break becomes \\n; a boilerplate phrase is cut to the end of its line; half a surrogate pair
    becomes the sign �. A tag is one of HTML's, with name=value attributes: `a<b and c>d` stays. An
    entity that stands for part of a tag or of an entity stays too: `&lt;b&gt;` is a text about a
    tag. So clean(clean(text)) == clean(text).
    """
    text = _tidy(text)
    while (plain := _unmark(text)) != text:
        text = _tidy(plain)
    return text


def _tidy(text: str) -> str:
    """Without unseen signs and boilerplate; twice gives the same as once."""
    text = re.sub(rf"(?:{'|'.join(BOILERPLATE)}).*", "", re.sub("  +", " ", _signs(text)))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" *\n *", "\n", text)).strip()


def _signs(text: str) -> str:
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    return unicodedata.normalize("NFC", re.sub(UNSEEN, "", re.sub("[\t\xa0]", " ", text)))


def _unmark(text: str) -> str:
    """Tags removed and entities read, save those whose going would put new markup together.

    Markup that is kept stands as before, so that a second time finds and keeps the same.
    """
    marks = [mark for mark in MARKUP.finditer(text) if _meaning(mark.group()) is not None]
    for _ in range(9):  # keeping some lets others be kept in their turn, seldom more than once
        parts, starts, ends, size, read = [], [], [], 0, 0
        for mark in marks:
            parts += text[read:mark.start()], _meaning(mark.group())
            starts.append(size + len(parts[-2]))
            size, read = starts[-1] + len(parts[-1]), mark.end()
            ends.append(size)
        plain = "".join(parts) + text[read:]
        new = {i for found in MARKUP.finditer(plain) if _meaning(found.group()) is not None
               for i in range(bisect_right(ends, found.start()), bisect_left(starts, found.end()))}
        if not new:
            return plain
        marks = [mark for i, mark in enumerate(marks) if i not in new]
    return text


def _meaning(mark: str) -> str | None:
    """What a reader sees for a tag or an entity; None for an entity that there is not."""
    if mark[0] == "<":
        return ""
    known = mark[1] == "#" or mark[1:] in html5
    return _signs(html.unescape(mark)) if known else None


@accepts(text=rules.text, kind=rules.one_of(*DIRT))
def soil(text: str, kind: str) -> tuple[str, str]:
    """The text with one `kind` of dirt, and the clean text it should become again."""
    added = {"decomposed accents": " café, naïve, Güell", "wrong decoding": " — é"}
    return DIRT[kind](text), text + added.get(kind, "")


@accepts(text=rules.text, n_words=rules.integer(1))
def shingles(text, n_words=5):
    """Distinct hashes of all runs of `n_words` words: sorted int64, each below 2^31.

    A text shorter than that has one shingle: itself.
    """
    words = re.findall(r"\w+", text.lower())
    runs = [" ".join(words[i:i + n_words]) for i in range(max(len(words) - n_words + 1, 1))]
    return np.unique([zlib.crc32(run.encode()) % PRIME for run in runs])


@accepts(sets=rules.each(rules.integers(1, 0, PRIME - 1, least=1), least=1),
         slope=rules.integers(1, 1, PRIME - 1, least=1), shift=rules.integers(1, 0, PRIME - 1),
         needs=same_length("slope", "shift"))
def minhash(sets, slope, shift):
    """Signatures of integer sets: column j holds the least (slope_j x + shift_j) mod PRIME over x.

    `slope` (1 to PRIME − 1) and `shift` (0 to PRIME − 1) have shape (m,); returns int64 of shape
    (n_sets, m). Two sets agree in a column with a probability of nearly their Jaccard similarity
    (Broder 1997).
    """
    return np.array([((slope[:, None] * s + shift[:, None]) % PRIME).min(axis=1) for s in sets])


@accepts(signatures=rules.integers(2), bands=rules.integer())
def candidate_pairs(signatures, bands):
    """Pairs (i, j), i < j, whose signatures agree in all rows of at least one of `bands` bands.

    `signatures` has shape (n, m); each band takes m // bands columns. A pair of similarity s is
    found with probability 1 − (1 − s^rows)^bands (Leskovec, Rajaraman & Ullman, ch. 3). Raises
    ValueError unless 1 ≤ bands ≤ m.
    """
    if not 0 < bands <= signatures.shape[1]:
        raise ValueError(f"{bands} bands of {signatures.shape[1]} columns: expected 1 to that many")
    rows, found = signatures.shape[1] // bands, set()
    for band in range(bands):
        buckets = defaultdict(list)
        for i, part in enumerate(signatures[:, band * rows:(band + 1) * rows]):
            buckets[part.tobytes()].append(i)
        for members in buckets.values():
            found.update(combinations(members, 2))
    return found


@accepts(sets=rules.each(lambda one: np.unique(rules.integers(1)(one))))
def jaccard_pairs(sets: list[np.ndarray]) -> dict[tuple[int, int], float]:
    """Exact Jaccard similarity |A ∩ B| / |A ∪ B| of all pairs (i < j) that share an element."""
    holders, shared = defaultdict(list), Counter()
    for i, one in enumerate(sets):
        for element in one.tolist():
            holders[element].append(i)
    for members in holders.values():
        if len(members) > 1:
            shared.update(combinations(members, 2))
    return {(i, j): n / (len(sets[i]) + len(sets[j]) - n) for (i, j), n in shared.items()}


def _some_words(words):
    """Rule: a list that is not empty; only those drawn need be words, so it is not gone through."""
    if not isinstance(words, list | tuple):
        raise TypeError(f"expected a list of words, got {type(words).__name__}")
    if not words:
        raise ValueError("expected at least one word")
    return words


@accepts(text=rules.text, rate=rules.number(0, 1), words=_some_words,
         rng=rules.a(np.random.Generator))
def edit(text: str, rate: float, words: list[str], rng: np.random.Generator) -> str:
    """The text with each word replaced, with probability `rate`, by a random one of `words`."""
    swap = rng.random(len(parts := text.split(" "))) < rate
    return " ".join(words[rng.integers(len(words))] if s else p
                    for s, p in zip(swap, parts, strict=True))


JUNK = {  # kind: what it makes of a text's words
    "numbers": lambda words, rng: (f"{n:.2f}" for n in rng.normal(50, 20, len(words))),
    "random letters": lambda words, rng: (
        "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), len(w))) for w in words),
    "one phrase again": lambda words, rng: words[:8] * (len(words) // 8 + 1),
    "keyword list": lambda words, rng: (w for w in words * 2 if w.lower() not in STOP_WORDS),
    "shuffled words": lambda words, rng: rng.permutation(words),
}


@accepts(kind=rules.one_of(*JUNK), text=rules.text, rng=rules.a(np.random.Generator))
def junk(kind: str, text: str, rng: np.random.Generator) -> str:
    """A worthless text of about the length of `text`; `kind` is a key of `JUNK`."""
    return " ".join(JUNK[kind](text.split(), rng))


@accepts(text=rules.text)
def quality(text: str) -> dict[str, float]:
    """Four simple measures of a text: three shares, and the mean number of letters per word.

    `letters`: of the characters that are not white space; `word_length`: mean letters per word;
    `stop_words`: of the words; `fresh`: distinct runs of five words among all runs.
    """
    signs, words = re.sub(r"\s", "", text), re.findall(r"[^\W\d_]+", text)
    n_runs = max(len(re.findall(r"\w+", text)) - 4, 1)
    return {"letters": sum(map(str.isalpha, signs)) / max(len(signs), 1),
            "word_length": sum(map(len, words)) / max(len(words), 1),
            "stop_words": sum(w.lower() in STOP_WORDS for w in words) / max(len(words), 1),
            "fresh": len(shingles(text)) / n_runs}


def _limits(limits):
    """Rule: some of the four measures, each with a (low, high) that a number can lie between."""
    for name, bounds in rules.a(dict)(limits).items():
        rules.one_of(*quality(""))(name)
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            raise ValueError(f"{name}: expected (low, high) with low ≤ high, got {bounds}")
    return limits


@accepts(text=rules.text, limits=_limits)
def passes(text: str, limits: dict[str, tuple[float, float]]) -> bool:
    """Whether each measure of `quality` that `limits` names lies within its (low, high)."""
    found = quality(text)
    return all(low <= found[name] <= high for name, (low, high) in limits.items())
