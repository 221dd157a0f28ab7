"""Contract of `modeling_msa.alignments.tables`: cells stay text as in the file, and their lines are known."""

import pytest

from modeling_msa.alignments.tables import delimiter_of, number_in, read_table


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "mutant,note\nK2R,\n\nA3V,b c\n"),
        ("t.csv", "mutant;note\nK2R;\n\nA3V;b c\n"),  # the header shows the separator
        ("t.tsv", "\ufeffmutant\tnote\r\nK2R\t\r\n\r\nA3V\tb c\r\n"),
        ("t.txt", "mutant,note\nK2R,\n\nA3V,b c\n"),
    ],
)
def test_separators(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    table = read_table(tmp_path / name)
    assert (table.columns, table.rows, table.lines) == (["mutant", "note"], [["K2R", ""], ["A3V", "b c"]], [2, 4])
    assert table.cells("note") == ["", "b c"]


def test_two_columns_of_one_name_are_not_read(tmp_path):
    (tmp_path / "t.csv").write_text("mutant,y,y\nK2R,1,2\n")
    table = read_table(tmp_path / "t.csv")
    assert table.cells("mutant") == ["K2R"]
    with pytest.raises(ValueError, match=r"t.csv: 2 columns are named 'y'; rename all but one of them"):
        table.cells("y")


def test_numbers():
    assert [number_in(text) for text in ("1e3", " -2 ", "1_0", "0x1", "1,5", "")] == [1000, -2, None, None, None, None]


def test_quoted_cells_and_lines(tmp_path):
    (tmp_path / "t.csv").write_text('mutant,note\nK2R,"a,\nb"\nA3V,c\n')
    table = read_table(tmp_path / "t.csv")
    assert table.cells("note") == ["a,\nb", "c"]
    assert table.lines == [3, 4]  # where each row ends
    assert (delimiter_of("T.CSV"), delimiter_of("t.tsv")) == (",", "\t")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"mutant,score\n", "no row below the header"),
        (b"mutant,score\nK2R,1\nA3V\n", "line 3 has 1 cell, the header 2"),
        (b"mutant,score\nK2R,1,2\n", "line 2 has 3 cells.*double quotes"),
        (b"PK\x03\x04\xff\xfe", "is not a table in UTF-8 text"),
    ],
)
def test_refused(tmp_path, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=rf"t\.csv: .*{message}"):
        read_table(tmp_path / "t.csv")
