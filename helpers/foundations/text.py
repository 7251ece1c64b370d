"""Raw text: cleaning, near-duplicates, quality rules, and junk and dirt to try them on."""

import html
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np

PRIME = 2**31 - 1  # products of two numbers below it fit into int64
STOP_WORDS = frozenset("the of and to in a that is be for it by which have as with this on are "
                       "our has been not from or will we their all at an they was but its".split())
UNSEEN = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]"  # no \n
BOILERPLATE = ("Subscribe to our newsletter", "All rights reserved", "Accept all cookies")
DIRT = {  # kind: what it does to a text
    "decomposed accents": lambda t: unicodedata.normalize("NFD", t + " café, naïve, Güell"),
    "control characters": lambda t: t.replace("the ", "the\x00 ").replace("of ", "o\u00adf ", 3),
    "HTML remains": lambda t: "<p>" + t.replace("\n\n", "</p>\n\n<p>") + "<br/>&nbsp;</p>",
    "boilerplate lines": lambda t: t + "\n\nAll rights reserved. Accept all cookies",
    "white space": lambda t: t.replace("\n", " \r\n").replace(", ", ",  ", 9),
    "wrong decoding": lambda t: (t + " — é").encode("utf-8").decode("cp1252", "replace"),
}


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
    return cut, np.array(owner)


def clean(text: str) -> str:
    """One spelling per text: no tags, entities, control signs or boilerplate; NFC; single spaces.

    NFC writes an accented letter as one code point (Unicode Standard Annex 15). Each kind of line
    break becomes \\n; a boilerplate phrase is cut to the end of its line.
    """
    text = html.unescape(re.sub(r"</?[A-Za-z][^<>]{0,80}>", "", text))
    text = re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    text = unicodedata.normalize("NFC", re.sub(r"[\t\xa0 ]+", " ", text))
    text = re.sub(UNSEEN, "", text)
    text = re.sub(rf"(?:{'|'.join(BOILERPLATE)}).*", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" *\n *", "\n", re.sub(r"  +", " ", text))).strip()


def soil(text: str, kind: str) -> tuple[str, str]:
    """The text with one `kind` of dirt, and the clean text it should become again."""
    added = {"decomposed accents": " café, naïve, Güell", "wrong decoding": " — é"}
    return DIRT[kind](text), text + added.get(kind, "")


def shingles(text, n_words=5):
    """Distinct hashes of all runs of `n_words` words: sorted int64, each below 2^31.

    A text shorter than that has one shingle: itself.
    """
    words = re.findall(r"\w+", text.lower())
    runs = [" ".join(words[i:i + n_words]) for i in range(max(len(words) - n_words + 1, 1))]
    return np.unique([zlib.crc32(run.encode()) % PRIME for run in runs])


def minhash(sets, slope, shift):
    """Signatures of integer sets: column j holds the least (slope_j x + shift_j) mod PRIME over x.

    `slope` (1 to PRIME − 1) and `shift` (0 to PRIME − 1) have shape (m,); returns int64 of shape
    (n_sets, m). Two sets agree in a column with a probability of nearly their Jaccard similarity
    (Broder 1997).
    """
    return np.array([((slope[:, None] * s + shift[:, None]) % PRIME).min(axis=1) for s in sets])


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


def edit(text: str, rate: float, words: list[str], rng: np.random.Generator) -> str:
    """The text with each word replaced, with probability `rate`, by a random one of `words`."""
    swap = rng.random(len(parts := text.split(" "))) < rate
    return " ".join(words[rng.integers(len(words))] if s else p
                    for s, p in zip(swap, parts, strict=True))


def junk(kind: str, text: str, rng: np.random.Generator) -> str:
    """A worthless text of about the length of `text`; `kind` is a key of the dictionary below."""
    words = text.split()
    return {
        "numbers": lambda: " ".join(f"{n:.2f}" for n in rng.normal(50, 20, len(words))),
        "random letters": lambda: " ".join(
            "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), len(w))) for w in words),
        "one phrase again": lambda: " ".join(words[:8] * (len(words) // 8 + 1)),
        "keyword list": lambda: " ".join(w for w in words * 2 if w.lower() not in STOP_WORDS),
        "shuffled words": lambda: " ".join(rng.permutation(words)),
    }[kind]()


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


def passes(text: str, limits: dict[str, tuple[float, float]]) -> bool:
    """Whether each measure of `quality` that `limits` names lies within its (low, high)."""
    found = quality(text)
    return all(low <= found[name] <= high for name, (low, high) in limits.items())
