"""Terminal output: no control characters from names, and no characters missing from its encoding."""

import io
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.reporting.tables import Column, print_table, render_table
from spleen.system.progress import ProgressBar
from spleen.system.terminal import encodable, printable, printable_name, readable_output
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import REPOSITORY
from tests._helpers.terminal import on_terminal

EVIL = "a\x1b[2J\x1b]0;title\x07b"
SPLEEN = [sys.executable, "-m", "spleen"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\x00\x07\x08\x7f", r"\x00\x07\x08\x7f"),
        ("\x9b2J", r"\x9b2J"),  # the one-character form of ESC [
        ("1\n2\t3\r\n", "1\n2\t3\r\n"),
        ("done\rfailed", r"done\rfailed"),
        ("txt.\u202egpj", r"txt.\u202egpj"),  # reverses the text after it
        ("scan\udcff", r"scan\xff"),
        ("\ud800", r"\ud800"),
        ("µm × 3 — é 漢", "µm × 3 — é 漢"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_name_is_printed_on_one_line() -> None:
    assert printable_name("a\nb\tc\r\nd") == r"a\nb\tc\r\nd"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "2 × 3 µm³ − 漢"),
        ("latin-1", "2 × 3 µm³ - ?"),
        ("ascii", "2 x 3 um3 - ?"),
        ("cp1252", "2 × 3 µm³ - ?"),
    ],
)
def test_characters_missing_from_the_encoding_are_replaced(encoding: str, shown: str) -> None:
    assert encodable("2 × 3 µm³ − 漢", encoding) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_printing_never_fails_on_an_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with readable_output(), readable_output():
        print(f"{EVIL} 2 × 3 µm³ \udcff")
        print_table(f"x{EVIL}", [Column("case", is_name=True), "µm³"], [[f"{EVIL}\n\udcff", 1.0]])
        sys.stdout.flush()
    assert b"\x1b" not in raw.getvalue()
    assert rb"\x1b[2J" in raw.getvalue()
    assert rb"\n\xff" in raw.getvalue()
    assert "\n" not in render_table("", [Column("case", is_name=True)], [["a\nb"]]).splitlines()[-1]


def test_the_progress_bar_escapes_case_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real terminal, where the bar itself uses control characters."""

    def work() -> None:
        with readable_output(), ProgressBar("slice") as bar:
            bar.start(EVIL, 10)
            bar.note(f"note {EVIL}", EVIL)
            bar.advance(EVIL, 3, 10)

    shown = on_terminal(monkeypatch, work, 160)
    assert r"a\x1b[2J" in shown
    assert "\x1b]0" not in shown
    assert "\x1b[2J" not in shown


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    return subprocess.run(
        command,
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [["explore"], ["evaluate"], ["predict"], ["results"], ["sync"]])
def test_no_command_prints_control_characters_from_file_names(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / EVIL).mkdir()
    for name in ("x", EVIL):
        save(tmp_path / EVIL / f"{name}.nii.gz", np.eye(6, dtype=np.int16)[None].repeat(4, 0), ras_affine())
    arguments = [EVIL, EVIL] if command == ["evaluate"] else [EVIL]
    done = run(tmp_path, *SPLEEN, *command, *arguments)
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\x07" not in done.stdout + done.stderr
    assert rb"\x1b" in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_train_errors_print_no_control_characters_from_arguments(tmp_path: Path) -> None:
    for arguments in (f"data.image='{EVIL}'", "data.label=x"), (f"axis='{EVIL}'",), (f"{EVIL}=1",), (f"resume={EVIL}",):
        done = run(tmp_path, *SPLEEN, "train", "data=nifti", *arguments, f"output_dir={tmp_path}")
        assert done.returncode == 2
        assert b"\x1b" not in done.stdout + done.stderr


# Encodings ----------------------------------------------------------------------------------------------------------

LOCALES = {
    "ascii output": {"PYTHONIOENCODING": "ascii"},
    "latin-1 output": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for name in ("b", "c"):
        label = np.zeros((20, 24, 22), np.uint8)
        label[6:14, 6:14, 4:18] = 1
        hu = (label * 150 + random.normal(0, 10, label.shape)).astype(np.int16)
        save(folder / "images" / f"{name}.nii.gz", hu, ras_affine((0.8, 0.8, 3.0)))
        save(folder / "labels" / f"{name}.nii.gz", label, ras_affine((0.8, 0.8, 3.0)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_every_command_works_in_any_locale(scans: Path, tmp_path: Path, locale: str) -> None:
    environment = LOCALES[locale]
    train = [
        "data=nifti", f"data.image={scans / 'images' / 'b.nii.gz'}", f"data.label={scans / 'labels' / 'b.nii.gz'}",
        "data.organ='Milz-größe'", "epochs=1", "img_size=32", "loader.slices_per_epoch=8", "model.network.width=4",
        "model.network.depth=2", "axis=axial", "split.guard_mm=0", "logger=none", "trainer=cpu",
        f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}", "hydra.run.dir=run",
    ]  # fmt: skip
    commands: list[list[str]] = [
        ["train", "--help"],
        ["train", *train],
        ["results", "run", "--markdown", "r.md", "--csv", "r.csv", "--latex", "r.tex"],
        ["predict", "run", str(scans / "images"), "-o", "masks"],
        ["evaluate", "masks", str(scans / "labels"), "--csv", "e.csv", "--json", "e.json"],
        ["compare", "masks", "masks", str(scans / "labels"), "--csv", "c.csv"],
        ["explore", str(scans / "images"), "--label", str(scans / "labels"), "--csv", "x.csv", "--output", "x.html"],
        ["predict", "--help"],
        ["train", "resume=run"],
    ]
    for command in commands:
        done = run(tmp_path, *SPLEEN, *command, **environment)
        assert b"Traceback" not in done.stderr, (command, done.stderr.decode(errors="replace"))
        assert b"UnicodeEncodeError" not in done.stderr, command
        assert done.returncode in ((0, 1) if command[0] == "explore" else (0,)), (command, done.stderr)
    assert "Milz-größe" in (tmp_path / "run" / "cases.csv").read_text(encoding="utf-8")
    for name in ("r.md", "r.csv", "r.tex", "e.csv", "e.json", "c.csv", "x.csv", "x.html", "masks/predictions.csv"):
        assert (tmp_path / name).read_text(encoding="utf-8"), name
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz")) == ["b.nii.gz", "c.nii.gz"]


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_file_names_are_recorded_unchanged_in_any_locale(scans: Path, tmp_path: Path, locale: str) -> None:
    (tmp_path / "patient-é").mkdir()
    for kind in ("images", "labels"):
        image = nib.load(scans / kind / "b.nii.gz")
        nib.save(image, tmp_path / "patient-é" / f"{kind}.nii.gz")
    done = run(tmp_path, *SPLEEN, "explore", "patient-é/images.nii.gz", "--csv", "x.csv", **LOCALES[locale])
    assert b"Traceback" not in done.stderr
    assert "patient-é/images.nii.gz" in (tmp_path / "x.csv").read_text(encoding="utf-8")


def test_text_files_are_opened_with_an_explicit_encoding() -> None:
    """Otherwise they would be written in the locale's encoding and be unreadable in another locale."""
    import ast

    found = []
    for path in sorted((REPOSITORY / "spleen").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, given = node.func.attr, {keyword.arg for keyword in node.keywords}
            mode = next((str(value.value) for value in node.args if isinstance(value, ast.Constant)), "")
            is_text = name in ("read_text", "write_text") or (name == "open" and "newline" in given and "b" not in mode)
            text_mode = any(keyword.arg in ("text", "universal_newlines") for keyword in node.keywords)
            if (is_text and "encoding" not in given) or (name in ("run", "Popen") and text_mode):
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


# Names that are not valid text --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_name_that_is_not_utf8_can_be_explored_scored_trained_and_predicted(scans: Path, tmp_path: Path) -> None:
    """Its undecodable byte is printed and recorded as a hexadecimal escape."""
    name = os.fsencode(tmp_path) + b"/a\xff$\\x$.nii.gz"
    Path(os.fsdecode(name)).write_bytes((scans / "images" / "b.nii.gz").read_bytes())
    label = tmp_path / "label.nii.gz"
    label.write_bytes((scans / "labels" / "b.nii.gz").read_bytes())
    image = Path(os.fsdecode(name)).name
    explored = run(
        tmp_path, *SPLEEN, "explore", image, "--label", "label.nii.gz",
        "--csv", "x.csv", "--json", "x.json", "--png", "x.png", "--output", "x.html",
    )  # fmt: skip
    assert explored.returncode in (0, 1), explored.stderr
    assert rb"a\xff$" in explored.stdout
    for table in ("x.csv", "x.json", "x.html"):
        assert r"a\xff$" in (tmp_path / table).read_text(encoding="utf-8").replace(r"\\", "\\"), table
    assert (tmp_path / "x.png").stat().st_size
    evaluated = run(tmp_path, *SPLEEN, "evaluate", image, "label.nii.gz", "--csv", "e.csv")
    assert b"Traceback" not in evaluated.stderr
    done = run(
        tmp_path, *SPLEEN, "train", "data=nifti", f"data.image='{tmp_path / image}'", f"data.label={label}", "epochs=1",
        "img_size=32", "loader.slices_per_epoch=8", "model.network.width=4", "model.network.depth=2", "axis=axial",
        "split.guard_mm=0", "logger=none", "trainer=cpu", "hydra.run.dir=run", "cache_dir=cache", "output_dir=out",
    )  # fmt: skip
    assert b"Traceback" not in done.stderr + done.stdout
    assert done.returncode == 0, done.stderr
    for again in ([], ["--skip-existing"]):
        predicted = run(tmp_path, *SPLEEN, "predict", "run", image, "-o", "masks", *again)
        assert predicted.returncode == 0, predicted.stderr
    assert b"0 predicted, 1 kept" in predicted.stdout
    assert r"a\xff$" in (tmp_path / "masks" / "predictions.csv").read_text(encoding="utf-8")
