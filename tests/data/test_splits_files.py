import json
from pathlib import Path

import pytest

from spleen.data.splits.files import FoldCases, read_case_list, read_splits, write_splits
from spleen.errors import InputError

FOLDS = (FoldCases(("b", "a", "ü"), ("c",)), FoldCases(("c",), ("b", "a")))


def splits(folder: Path, content: object) -> Path:
    (folder / "splits_final.json").write_text(json.dumps(content))
    return folder / "splits_final.json"


def test_folds_are_written_in_the_nnunet_format(tmp_path: Path) -> None:
    path = tmp_path / "new" / "splits_final.json"
    write_splits(path, FOLDS)
    content = json.loads(path.read_text(encoding="ascii"))
    assert content == [{"train": ["b", "a", "ü"], "val": ["c"]}, {"train": ["c"], "val": ["b", "a"]}]
    assert read_splits(path) == FOLDS
    assert [entry.name for entry in path.parent.iterdir()] == ["splits_final.json"]


def test_other_keys_of_a_fold_are_ignored(tmp_path: Path) -> None:
    path = splits(tmp_path, [{"train": ["a"], "val": ["b"], "test": ["c"]}])
    assert read_splits(path) == (FoldCases(("a",), ("b",)),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be a list of folds"),
        ({"train": ["a"], "val": ["b"]}, "must be a list of folds"),
        ([["a"], ["b"]], 'fold 0 must have the lists "train" and "val"'),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a"]}], 'fold 1 must have the lists "train" and "val"'),
        ([{"train": "a", "val": ["b"]}], "fold 0, \"train\" must be a list of quoted case_ids; got 'a'"),
        ([{"train": ["a"], "val": [1]}], r'fold 0, "val" must be a list of quoted case_ids; got \[1\]'),
        ([{"train": ["a"], "val": [""]}], 'fold 0, "val" must be a list'),
        ([{"train": ["a"], "val": []}], "fold 0: .* must each list at least one case"),
        ([{"train": [], "val": ["a"]}], "fold 0: .* must each list at least one case"),
        ([{"train": ["a", "b", "a"], "val": ["c"]}], "fold 0: \"train\" lists 'a' more than once"),
        ([{"train": ["a"], "val": ["b", "b"]}], "fold 0: \"val\" lists 'b' more than once"),
        (
            [{"train": list("abcdefg"), "val": list("gfedcbz")}],
            "fold 0: 'b', 'c', 'd', 'e', 'f' and 1 more is in both \"train\" and \"val\"",
        ),
    ],
)
def test_invalid_folds_are_reported(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_splits(splits(tmp_path, content))


def test_an_unreadable_splits_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"splits_final\.json cannot be read: No such file"):
        read_splits(tmp_path / "splits_final.json")
    (tmp_path / "splits_final.pkl").write_bytes(b"\x80\x04\x95")
    with pytest.raises(InputError, match="is not valid JSON"):
        read_splits(tmp_path / "splits_final.pkl")


def test_invalid_folds_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    with pytest.raises(InputError, match='fold 1: \'a\' is in both "train" and "val"'):
        write_splits(path, [FOLDS[0], FoldCases(("a",), ("a",))])
    with pytest.raises(InputError, match="there are no folds to write"):
        write_splits(path, [])
    assert not path.exists()


# Case lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "b\na\n#x#\n",
        "# test cases\n\n  b  \r\na # the bad scan\r\n\t# c\n#x#",
        '["b", "a"]',
        '\ufeff\n ["b",\n "a"]\n',
        "\ufeffb\na",
    ],
)
def test_a_case_list_is_read_from_lines_or_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_bytes(text.encode())
    assert read_case_list(tmp_path / "list") == ("b", "a")


def test_a_hash_inside_a_case_id_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("case#1\n")
    assert read_case_list(tmp_path / "list") == ("case#1",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "lists no cases; write one case_id per line, or a JSON list"),
        (b"[]", "lists no cases"),
        (b"a\nb\na\n", "lists 'a' more than once"),
        (b'["a", 3]', "must be a list of quoted case_ids"),
        (b'{"test": ["a"]}', "must be a list of quoted case_ids"),
        (b'["a",', "is not valid JSON"),
        (b"\xff\xfea\x00", "is not UTF-8 text"),
    ],
)
def test_an_invalid_case_list_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_case_list(tmp_path / "list")


def test_a_missing_case_list_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere cannot be read: No such file"):
        read_case_list(tmp_path / "nowhere")
