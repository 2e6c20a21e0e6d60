"""Class names and their codes: the shipped table is right, and a user's own file is read or refused with the reason."""

from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from pydicom.sr.codedict import codes as dictionary

from spleen.dicom.codes import FILE, SIDES, Concept, codes_of, folded, read_codes
from spleen.errors import InputError
from tests._helpers.small_run import REPOSITORY

SHIPPED = yaml.safe_load((REPOSITORY / "conf" / FILE).read_text())


@pytest.fixture(scope="module")
def meanings() -> dict[str, set[str]]:
    """What each SNOMED CT code means that DICOM uses, by pydicom's dictionary, in lower case."""
    found: dict[str, set[str]] = defaultdict(set)
    for keyword in dictionary.SCT.dir():
        concept = getattr(dictionary.SCT, keyword)
        found[concept.value].add(concept.meaning.casefold())
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_code_is_one_that_dicom_uses_for_that_meaning(name: str, meanings: dict[str, set[str]]) -> None:
    (code,) = codes_of([name], read_codes())
    for concept in filter(None, (code.type, code.category, code.modifier)):
        assert concept.scheme == "SCT"
        assert concept.meaning.casefold() in meanings[concept.value]


@pytest.mark.parametrize("name", ["left_kidney", "Left Kidney", "KIDNEY-left", " kidney  left "])
def test_a_name_is_found_however_it_is_written(name: str) -> None:
    (code,) = codes_of([name], read_codes())
    assert (code.type, code.modifier) == (Concept("64033007", "Kidney"), Concept("7771000", "Left"))
    assert code.modifier in SIDES


def test_own_codes_are_added_and_replace_shipped_ones(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "Caudate Lobe: {code: 71133005, meaning: Caudate lobe}\n"
        'spleen: {code: "S1", meaning: My spleen, scheme: 99ME}\n'
        "fat: {code: 55603005, meaning: Adipose tissue, category: tissue, color: [255, 255, 0]}\n"
    )
    lobe, spleen, fat, liver = codes_of(["caudate_lobe", "Spleen", "fat", "liver"], read_codes(own))
    assert lobe.type == Concept("71133005", "Caudate lobe", "SCT")
    assert spleen.type == Concept("S1", "My spleen", "99ME")
    assert (fat.category.meaning, fat.color) == ("Tissue", (255, 255, 0))
    assert liver.type.value == "10200004"


def test_a_class_without_code_is_refused_with_what_to_add() -> None:
    with pytest.raises(InputError) as caught:
        codes_of(["spleen", "organ", "sinus"], read_codes())
    message = str(caught.value)
    assert message.startswith("no DICOM code is known for 'organ', 'sinus'. Add --codes my_codes.yaml ")
    assert "--class organ=spleen" in message
    assert FILE in message
    added = yaml.safe_load(message.splitlines()[-1])
    assert added == {"organ": {"code": "78961009", "meaning": "Spleen"}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "must hold class names with their codes"),
        ("- spleen", "must hold class names with their codes"),
        ("spleen: [", "is not valid YAML"),
        ("a: 78961009", r"a: must be of the form \{code:"),
        ("a: {code: 1}", "a: meaning must be 1 to 64 characters"),
        ("a: {meaning: A}", "a: code must be 1 to 16 characters"),
        ("a: {code: 12345678901234567, meaning: A}", r"a: code must be 1 to 16 characters without \\; got '1234"),
        ("a: {code: 'x\\y', meaning: A}", r"a: code must be 1 to 16 characters"),
        ('a: {code: 1, meaning: "A\\n"}\nb: {code: 1, meaning: "A\\tB"}', "b: meaning must be"),
        ("a: {code: 1, meaning: A, scheme: ''}", "a: scheme must be"),
        ("a: {code: 1, meaning: A, side: left}", "a: unknown key 'side'; allowed are code, meaning"),
        ("a: {code: 1, meaning: A, modifier: lefft}", "a: modifier must be one of left, right"),
        ("a: {code: 1, meaning: A, modifier: [left]}", "a: modifier must be one of left, right"),
        ("a: {code: 1, meaning: A, category: organ}", "a: category must be one of anatomy, tissue, lesion"),
        ("a: {code: 1, meaning: A, color: red}", r"a: color must be \[red, green, blue\]"),
        ("a: {code: 1, meaning: A, color: [0, 0, 256]}", r"a: color must be \[red, green, blue\]"),
        ("a b: {code: 1, meaning: A}\nB_A: {code: 2, meaning: A}", "a b: comes twice"),
    ],
)
def test_a_file_of_codes_with_a_mistake_is_refused_with_the_reason(content: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "codes.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=match):
        read_codes(path)


def test_a_file_of_codes_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml cannot be read: No such file"):
        read_codes(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.yaml cannot be read: it is no text"):
        read_codes(tmp_path / "binary.yaml")


def test_folding_keeps_different_names_apart() -> None:
    assert folded("kidneys") != folded("kidney")
    assert folded("left kidney") != folded("right kidney")
