from __future__ import annotations

import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data.text_files import TextFiles

DATA = config.Data()
TABLES = {
    ".tsv": 'sentence\tlabel\n"a\tpos\nb "q"\tneg\n',
    ".csv": 'sentence,label\n"""a",pos\n"b ""q""",neg\n',
    ".jsonl": '{"sentence": "\\"a", "label": "pos"}\n\n{"sentence": "b \\"q\\"", "label": "neg"}\n',
}


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def refused(path: Path | str, data: config.Data = DATA) -> str:
    with pytest.raises(InputError) as raised:
        TextFiles(str(path), data).check()
        TextFiles(str(path), data).examples()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("suffix", list(TABLES))
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str, zipped: str) -> None:
    path = write(tmp_path / f"x{suffix}{zipped}", TABLES[suffix])
    found = TextFiles(str(path), DATA).examples()
    assert (found.texts, found.labels, found.pairs) == (['"a', 'b "q"'], ["pos", "neg"], None)
    assert found.ids == [0, 1]
    assert list(TextFiles(str(path), DATA).lines()) == ['"a', "", 'b "q"', ""]


@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_text_keeps_its_lines_and_a_blank_line_ends_a_document(tmp_path: Path, zipped: str) -> None:
    path = write(tmp_path / f"x.txt{zipped}", "\ufeff one \r\ntwo\u2028still two\n \t\nthree")
    assert list(TextFiles(str(path), DATA).lines()) == [
        " one ",
        "two\u2028still two",
        "",
        "three",
        "",
    ]


def test_a_glob_is_read_in_sorted_order_and_files_end_documents(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.txt", name)
    assert list(TextFiles(str(tmp_path / "*.txt"), DATA).lines()) == ["a", "", "b", "", "c", ""]
    assert (
        TextFiles(str(tmp_path / "*.txt"), DATA).examples().place(1) == f"{tmp_path}/b.txt, line 1"
    )


def test_pairs_are_found_by_their_usual_names_or_by_the_config(tmp_path: Path) -> None:
    path = str(write(tmp_path / "x.tsv", "label\tpremise\thypothesis\tnote\nyes\tp\th\tn\n"))
    found = TextFiles(path, DATA).examples()
    assert (found.texts, found.pairs) == (["p"], ["h"])
    assert TextFiles(path, config.Data(pair="-")).examples().pairs is None
    found = TextFiles(path, config.Data(text="note", pair="premise", label="hypothesis")).examples()
    assert (found.texts, found.pairs, found.labels) == (["n"], ["p"], ["h"])


def test_in_qnli_the_sentence_is_the_second_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "question\tsentence\tlabel\nq\ts\t1\n")
    found = TextFiles(str(path), DATA).examples()
    assert (found.texts, found.pairs) == (["q"], ["s"])


def test_an_example_may_lack_its_label_and_a_file_its_labels(tmp_path: Path) -> None:
    found = TextFiles(
        str(write(tmp_path / "x.tsv", "text\tlabel\na\t\nb\t-\nc\t-1\n")), DATA
    ).examples()
    assert found.labels == [None, None, "-1"]
    assert TextFiles(str(write(tmp_path / "y.tsv", "text\na\n")), DATA).examples().labels is None
    path = write(tmp_path / "z.jsonl", '{"text": "a", "label": 3}\n{"text": "b"}\n')
    numbers = TextFiles(str(path), DATA).examples()
    assert numbers.labels == ["3", None]


def test_a_csv_cell_may_span_lines_and_a_json_text_too(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'text\n"one\ntwo"\n')
    assert TextFiles(str(path), DATA).examples().texts == ["one\ntwo"]
    assert list(TextFiles(str(path), DATA).lines()) == ["one", "two", ""]


def test_empty_files_are_refused(tmp_path: Path) -> None:
    assert "is empty" in refused(write(tmp_path / "a.txt", ""))
    assert "is empty" in refused(write(tmp_path / "a.txt.gz", ""))
    assert "has no rows" in refused(write(tmp_path / "b.tsv", "text\tlabel\n"))
    assert "is empty" in refused(write(tmp_path / "c.jsonl", "\n"))


def test_a_row_that_lacks_a_column_is_refused_with_its_line(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.tsv", "text\tlabel\nx\t1\ny\n"))
    assert "a.tsv, line 3" in message and "'label' missing" in message
    assert "a.csv, line 4" in refused(write(tmp_path / "a.csv", 'text,label\n"x\ny",1\nz\n'))
    message = refused(write(tmp_path / "a.jsonl", '{"text": "a"}\n{"txt": "b"}\n'))
    assert "a.jsonl, line 2" in message and "'text' is missing" in message


def test_a_row_with_a_stray_tab_is_refused_rather_than_misread(tmp_path: Path) -> None:
    assert "line 2: 3 columns" in refused(write(tmp_path / "a.tsv", "label\ttext\n1\tx\ty\n"))


@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_text_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path, zipped: str) -> None:
    good = "naïve\n".encode() * 40_000  # the bad byte lies far beyond the first read
    path = write(tmp_path / f"a.txt{zipped}", good + b"ab\xff\n")
    assert "line 40001, byte 3" in refused(path)
    with pytest.raises(InputError, match="line 40001, byte 3"):
        list(TextFiles(str(path), DATA).lines())


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(str(n**3) for n in range(50_000)).encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refused(tmp_path / "a.txt.gz")
    (tmp_path / "b.txt.gz").write_bytes(b"this is plain text")
    assert "not a sound gzip file" in refused(tmp_path / "b.txt.gz")
    (tmp_path / "c.txt.gz").write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    assert "c.txt.gz" in refused(tmp_path / "c.txt.gz")


def test_invalid_json_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "a.jsonl, line 2: not JSON" in refused(
        write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": \n')
    )
    assert "line 1: not a JSON object" in refused(write(tmp_path / "b.jsonl", "[1]\n"))
    assert "'text' is not text" in refused(write(tmp_path / "c.jsonl", '{"text": 3}\n'))
    assert "surrogate" in refused(write(tmp_path / "d.jsonl", '{"text": "\\ud800"}\n'))


def test_csv_with_an_open_quote_is_refused(tmp_path: Path) -> None:
    assert "not CSV" in refused(write(tmp_path / "a.csv", 'text,label\n"x,1\n'))


def test_unknown_columns_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "phrase\tlabel\nx\t1\n")
    assert "set data.text to one of phrase, label" in refused(path)
    assert "did you mean phrase" in refused(path, config.Data(text="phrases"))
    assert "config.data.label" in refused(path, config.Data(text="phrase", label="gold"))
    assert "config.data.pair" in refused(path, config.Data(text="phrase", pair="hypo"))


def test_folders_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    assert "is a folder" in refused(tmp_path)
    assert "unknown format" in refused(write(tmp_path / "a.xml", "x"))


def test_the_size_hint_is_the_unpacked_size(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x" * 5000)
    write(tmp_path / "b.txt.gz", "x" * 7000)
    assert TextFiles(str(tmp_path / "*"), DATA).size_hint() == 12_000


def test_blocks_of_any_size_hold_the_examples_in_order(tmp_path: Path) -> None:
    for name, rows in (("a", 3), ("b", 4)):
        text = "".join(f"{name}{row}\t{'xyz'[row % 3]}\n" for row in range(rows))
        write(tmp_path / f"{name}.tsv", f"text\tlabel\n{text}")
    whole = TextFiles(f"{tmp_path}/*.tsv", DATA).examples()
    for rows, characters, sizes in (
        (2, 99, [2, 2, 2, 1]),
        (7, 99, [7]),
        (9, 5, [3, 3, 1]),
        (9, 1, [1] * 7),
    ):
        blocks = list(TextFiles(f"{tmp_path}/*.tsv", DATA).example_blocks(rows, characters))
        assert [len(block) for block in blocks] == sizes
        for name in ("texts", "labels", "ids"):
            assert [value for block in blocks for value in getattr(block, name)] == getattr(
                whole, name
            )
        places = [block.place(row) for block in blocks for row in range(len(block))]
        assert places == [whole.place(row) for row in range(7)]
        assert places[3] == f"{tmp_path}/b.tsv, line 2"


def test_blocks_need_memory_for_one_block_only(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.tsv.gz", "wt", compresslevel=1) as file:
        file.write("text\n")
        file.writelines(f"{row} {'word ' * 20}\n" for row in range(20_000))
    tracemalloc.start()
    rows = sum(
        len(block) for block in TextFiles(str(tmp_path / "x.tsv.gz"), DATA).example_blocks(200)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 20_000
    assert peak < 500_000  # of 3 MB


def test_files_with_and_without_pairs_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", "text\tsentence2\na\tb\n")
    write(tmp_path / "b.tsv", "text\nc\n")
    with pytest.raises(InputError, match="some have pairs of texts and some have not"):
        list(TextFiles(f"{tmp_path}/*.tsv", DATA).example_blocks(1))


def test_predict_input_of_any_ending_is_text_unless_it_is_a_table(tmp_path: Path) -> None:
    write(tmp_path / "test.en", "one\n\ntwo\n")
    write(tmp_path / "x.tsv", "label\ttext\na\tone\n")
    (block,) = TextFiles(str(tmp_path / "test.en"), DATA, any_ending=True).example_blocks(9)
    assert block.texts == ["one", "", "two"]
    (block,) = TextFiles(str(tmp_path / "x.tsv"), DATA, any_ending=True).example_blocks(9)
    assert block.texts == ["one"] and block.labels == ["a"]


def test_text_on_standard_input_is_read_once(tmp_path: Path) -> None:
    script = (
        "from tlc_jax import config; from tlc_jax.data import text_files as f; "
        "files = f.TextFiles(f.STANDARD_INPUT, config.Data(), any_ending=True); "
        "files.check(); files.size_hint(); "
        "print([block.texts for block in files.example_blocks(2)])"
    )
    run = [sys.executable, "-c", script]
    piped = subprocess.run(run, input="\ufeffa\nb\nc\n", capture_output=True, text=True, check=True)
    assert piped.stdout == "[['a', 'b'], ['c']]\n"
    bad = subprocess.run(run, input=b"\xff\n", capture_output=True, check=False)
    assert b"/dev/stdin is not UTF-8: convert it" in bad.stderr
