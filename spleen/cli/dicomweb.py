"""`spleen predict --dicomweb`: a series from an archive in place of an input, and the results back to it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.dicom.web import Archive
    from spleen.inference.predict import PredictionReport

_HEADER_VARIABLE = "SPLEEN_DICOMWEB_HEADER_FILE"

DicomwebUrl = Annotated[
    str | None, typer.Option("--dicomweb", metavar="URL", help="Take the image from this DICOMweb service.")
]
StudyUid = Annotated[str | None, typer.Option("--study", metavar="UID", help="With --dicomweb, the study.")]
Store = Annotated[bool, typer.Option("--store", help="With --dicomweb, send segmentation and report back to it.")]
HeaderFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar=_HEADER_VARIABLE,
        help="With --dicomweb, HTTP headers such as Authorization: Bearer TOKEN, one a line. Else ~/.netrc is used.",
    ),
]


@dataclass(frozen=True)
class Remote:
    """A series in an archive."""

    archive: "Archive"
    study_uid: str
    series: str | None
    """Number or UID, with :N where one series holds several volumes."""
    store: bool

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """The series in a folder that only its owner can read, and that is removed in the end.

        Raises InputError as `Archive` does.
        """
        from spleen.dicom.web import choose_series
        from spleen.imaging.dicom.location import with_selector

        selector, mark, volume = (self.series or "").partition(":")
        series = choose_series(self.archive.series_of(self.study_uid), selector or None)
        with TemporaryDirectory(prefix="spleen-dicomweb-") as parent:
            folder = Path(parent) / series.uid
            folder.mkdir()
            self.archive.fetch(self.study_uid, series, folder)
            yield with_selector(folder, f"{series.uid}:{volume}") if mark else folder

    def send(self, report: "PredictionReport") -> None:
        """Store what was predicted, or kept, in the archive, if that was asked for. The files stay where they are."""
        from spleen.dicom.results import report_path

        if not self.store:
            return
        for mask in (*(case.mask for case in report.cases), *report.kept_masks):
            files = [path for path in (mask, report_path(mask)) if path.exists()]
            try:
                self.archive.store(self.study_uid, files)
            except InputError as error:
                raise InputError(
                    f"{error}. The results lie in {mask.parent}: {', '.join(f.name for f in files)}"
                ) from error
            print(f"  stored {len(files)} result(s) in {self.archive.url}")


def parse_remote(
    url: str | None,
    study_uid: str | None,
    series: str | None,
    store: bool,
    header_file: Path | None,
    inputs: Sequence[Path],
) -> Remote | None:
    """What the options name; None without --dicomweb. Raises InputError for options that do not go together."""
    if url is None:
        headers = header_file is not None and str(header_file) != os.environ.get(_HEADER_VARIABLE)
        options = {"--study": study_uid, "--store": store, "--header-file": headers}
        alone = [name for name, given in options.items() if given]
        if alone:
            raise InputError(f"{alone[0]} belongs to --dicomweb URL")
        return None
    from spleen.dicom.web import check_uid, open_archive

    if study_uid is None:
        raise InputError("--dicomweb needs the study to take the image from: --study UID")
    if inputs:
        raise InputError(f"give either --dicomweb or files to predict, not both; got {inputs[0]}")
    return Remote(open_archive(url, header_file), check_uid(study_uid, "--study"), series, store)
