"""`spleen predict --dicomweb` against a real Orthanc, and against servers that misbehave."""

import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.dicom import web
from spleen.dicom.web import RemoteSeries, choose_series, open_archive, read_headers
from spleen.dicom.write_series import write_series
from spleen.errors import InputError
from tests._helpers.dicom_results import class_indices, coded_run, ct_of, int16, sop_uids
from tests._helpers.nifti import ras_affine, save
from tests._helpers.orthanc import Orthanc, free_port, orthanc
from tests._helpers.small_run import SPACING_MM, SmallCt
from tests._helpers.trained_runs import voxels

pytest.importorskip("dicomweb_client")
AFFINE = ras_affine(SPACING_MM)
STUDY = "1.2.3"
SERIES = RemoteSeries("1.2.3.4", "1", "CT", "", None)


def predict(*arguments: object):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded_run(tmp_path_factory)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return ct_of(tmp_path_factory)


@pytest.fixture(scope="module")
def files(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("scan"), int16(ct), AFFINE)


@pytest.fixture(scope="module")
def study(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture(scope="module")
def archive(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.upload(files)
        yield server


# Orthanc --------------------------------------------------------------------------------------------------------------


def test_a_series_is_predicted_and_the_archive_gets_the_segmentation(
    archive: Orthanc,
    run: Path,
    ct: SmallCt,
    files: list[Path],
    study: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    done = predict(run, "--dicomweb", archive.dicomweb, "--study", study, "--store", "-o", tmp_path / "seg.dcm")
    assert done.exit_code == 0, done.output
    assert f"stored 2 result(s) in {archive.dicomweb}" in done.output
    assert list((tmp_path / "temporary").iterdir()) == []  # what was fetched is gone
    listed = open_archive(archive.dicomweb).series_of(study)  # QIDO finds what STOW stored
    assert sorted(each.modality for each in listed) == ["CT", "SEG", "SR"]
    (identifier,) = archive.find(Modality="SEG")
    stored = archive.download(identifier, tmp_path / "stored.dcm")
    predict(run, save(tmp_path / "ct.nii", int16(ct), AFFINE), "-o", tmp_path / "mask.nii.gz")
    mask = voxels(tmp_path / "mask.nii.gz")
    expected = np.select([mask == 3, mask == 7], [1, 2])  # the label values of the training
    assert expected.any()
    np.testing.assert_array_equal(class_indices(stored, sop_uids(files)), expected)


def test_a_mask_in_nifti_is_written_where_the_output_is_called_so(
    archive: Orthanc, run: Path, study: str, tmp_path: Path
) -> None:
    options = ("--dicomweb", archive.dicomweb, "--study", study, "--series", "1", "-o", tmp_path / "mask.nii.gz")
    assert predict(run, *options).exit_code == 0
    assert voxels(tmp_path / "mask.nii.gz").any()
    done = predict(run, *options, "--store", "--overwrite")
    assert done.exit_code == 2
    assert "--store sends DICOM segmentations" in done.output


def test_files_come_as_they_are_in_the_archive_into_a_private_folder(
    archive: Orthanc, files: list[Path], study: str, tmp_path: Path
) -> None:
    from spleen.cli.dicomweb import Remote

    with Remote(open_archive(archive.dicomweb), study, None, store=False).fetched() as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        fetched = sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).InstanceNumber)
        assert len(fetched) == len(files)
        for came, sent in zip(fetched, files, strict=True):
            assert pydicom.dcmread(came).PixelData == pydicom.dcmread(sent).PixelData
    assert not folder.exists()


@pytest.mark.slow
def test_results_that_an_archive_did_not_take_are_sent_by_the_same_command_once_more(
    run: Path, files: list[Path], study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    series = pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID
    with orthanc(tmp_path / "orthanc") as server:
        server.upload(files)
        command = (run, "--dicomweb", server.dicomweb, "--study", study)
        assert predict(*command).exit_code == 0
        results = {path.name for path in (tmp_path / "predictions").glob("*.dcm")}
        assert results == {f"{series}.dcm", f"{series}_report.dcm"}
        assert predict(*command, "--store", "--skip-existing").exit_code == 0
        assert len(server.find(Modality="SEG")) == len(server.find(Modality="SR")) == 1


@pytest.mark.slow
def test_several_series_are_listed_and_one_is_chosen(run: Path, ct: SmallCt, tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc") as server:
        scans = {n: write_series(tmp_path / str(n), int16(ct)[:, :, : 4 + n], AFFINE, series_number=n) for n in (1, 2)}
        server.upload([*scans[1], *scans[2]])
        study = pydicom.dcmread(scans[1][0]).StudyInstanceUID
        given = (run, "--dicomweb", server.dicomweb, "--study", study, "-o", tmp_path / "seg.dcm")
        done = predict(*given)
        assert done.exit_code == 2
        assert "2 series; choose one by --series:" in done.output
        assert "1: CT phantom, 5 images" in done.output
        assert "the study has no series 7" in predict(*given, "--series", "7").output
        assert predict(*given, "--series", "2").exit_code == 0
        read = pydicom.dcmread(tmp_path / "seg.dcm")
        assert read.ReferencedSeriesSequence[0].SeriesInstanceUID == pydicom.dcmread(scans[2][0]).SeriesInstanceUID


@pytest.mark.slow
def test_users_come_from_netrc_or_a_file_of_headers(
    files: list[Path], study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with orthanc(tmp_path / "orthanc", "alice", "secret") as server:
        server.upload(files[:3])
        with pytest.raises(InputError, match=r"refuses access \(401\); put user and password into ~/.netrc"):
            open_archive(server.dicomweb).series_of(study)
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login alice password secret\n")
        assert len(open_archive(server.dicomweb).series_of(study)) == 1
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login alice password wrong\n")
        (tmp_path / "headers").write_text("Authorization: Basic YWxpY2U6c2VjcmV0\n")  # alice:secret in base 64
        assert len(open_archive(server.dicomweb, tmp_path / "headers").series_of(study)) == 1


def test_an_archive_without_the_study_says_so(archive: Orthanc) -> None:
    with pytest.raises(InputError, match=r"has no (such )?study"):
        open_archive(archive.dicomweb).series_of("1.2.3.4")
    with pytest.raises(InputError, match=r"\(404\)"):
        open_archive(f"{archive.url}/elsewhere").series_of("1.2.3.4")


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--dicomweb", "https://alice:secret@host/web", "--study", STUDY), "must not hold a user or a password"),
        (("--dicomweb", "host/dicom-web", "--study", STUDY), "must be the base URL"),
        (("--dicomweb", "ftp://host/web", "--study", STUDY), "must be the base URL"),
        (("--dicomweb", "https://host/web?token=1", "--study", STUDY), "must be the base URL"),
        (("--dicomweb", "https://host:99999/web", "--study", STUDY), "must be the base URL"),
        (("--dicomweb", "https://host/web"), "needs the study"),
        (("--dicomweb", "https://host/web", "--study", "1.2/../3"), "must be a UID of digits and dots"),
        (("--study", STUDY, "scan.nii"), "--study belongs to --dicomweb"),
        (("--store", "scan.nii"), "--store belongs to --dicomweb"),
        (("--header-file", "headers.txt", "scan.nii"), "--header-file belongs to --dicomweb"),
        (("--dicomweb", "https://host/web", "--study", STUDY, "scan.nii"), "not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Path, options: tuple[str, ...], told: str) -> None:
    done = predict(run, *options)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert "secret" not in done.output.replace("https://alice:secret@host/web", "")


def test_a_connection_without_encryption_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://127.0.0.1:8042/dicom-web", "http://localhost/dicom-web", "https://host/dicom-web"):
        open_archive(url)
    assert caplog.records == []
    open_archive("http://archive.example/dicom-web")
    assert "is not encrypted" in caplog.text


def test_a_file_of_headers_is_read_and_its_lines_are_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("Authorization: Bearer abc\n\nX-Key:  1 2 \n")
    assert read_headers(path) == {"Authorization": "Bearer abc", "X-Key": "1 2"}
    for content in ("Bearer geheim\n", "A: b\r\nX geheim", "", "N\u00e4me: geheim", ": geheim"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            read_headers(path)
        assert "geheim" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_headers(tmp_path / "missing")


def test_without_a_choice_the_only_ct_or_mr_is_taken() -> None:
    seg, mr = RemoteSeries("1.5", "5", "SEG", "", 1), RemoteSeries("1.6", "6", "MR", "T1", 9)
    assert choose_series([SERIES, seg], None) == SERIES
    assert choose_series([SERIES, seg, mr], "1.6") == mr
    with pytest.raises(InputError, match=r"no series of CT or MR:\n  5: SEG, 1 images, 1\.5"):
        choose_series([seg], None)


# Servers that misbehave -----------------------------------------------------------------------------------------------

BOUNDARY = 'multipart/related; type="application/dicom"; boundary=XX'
LISTED = b'[{"0020000E": {"vr": "UI", "Value": ["1.2.3.4"]}, "00080060": {"vr": "CS", "Value": ["CT"]}}]'


@contextmanager
def serving(
    status: int = 200, kind: str = "application/dicom+json", body: bytes = b"[]", wait: float = 0, **headers: str
):
    """A server that always answers the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(wait)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield open_archive(f"http://127.0.0.1:{server.server_address[1]}/web")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 401}, r"refuses access \(401\)"),
        ({"status": 403}, r"refuses access \(403\)"),
        ({"status": 404}, r"no such study or series \(404\)"),
        ({"status": 500}, r"answered 500"),
        ({"status": 503}, r"is overloaded"),
        ({"status": 302, "Location": "http://other.example/login?secret"}, r"another place \(http://other\.example\)"),
        ({"kind": "text/html", "body": b"<html>log in</html>"}, r"did not answer as DICOMweb"),
        ({"body": b"[1, 2]"}, r"did not answer as DICOMweb"),
        ({"body": b'{"0020000E": 5}'}, r"did not answer as DICOMweb"),
        ({"body": b'[{"0020000E": {"Value": ["../../x"]}}]'}, r"must be a UID of digits and dots"),
        ({"body": b"[", "Content-Length": "100"}, r"broke its answer off|cannot be reached"),
    ],
)  # fmt: skip
def test_listing_a_study_fails_in_words(answer: dict, told: str) -> None:
    with serving(**answer) as archive, pytest.raises(InputError, match=told) as caught:
        archive.series_of(STUDY)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"kind": "text/html", "body": b"<html>log in</html>"}, r"sent text/html instead of DICOM"),
        ({"kind": "multipart/related"}, r"sent multipart/related instead of DICOM"),
        ({"kind": BOUNDARY, "body": b""}, r"broke off"),
        ({"kind": BOUNDARY, "body": b"--XX\r\nContent-Type: application/dicom\r\n\r\nDICM"}, r"broke off"),
        ({"kind": BOUNDARY, "body": b"noise " * 20000}, r"no multipart message"),
        ({"kind": BOUNDARY, "body": b"--XX\r\n" + b"a" * 70000}, r"no multipart message"),
        ({"kind": BOUNDARY, "body": b"--XX\r\n\r\nno DICOM\r\n--XX--"}, r"is a damaged DICOM file|is not DICOM"),
        ({"kind": "application/dicom", "body": b""}, r"is empty"),
        ({"status": 404}, r"\(404\)"),
    ],
)  # fmt: skip
def test_fetching_a_series_fails_in_words(tmp_path: Path, answer: dict, told: str) -> None:
    with serving(**answer) as archive, pytest.raises(InputError, match=told):
        archive.fetch(STUDY, SERIES, tmp_path)


def dicom(series: str = SERIES.uid, number: int = 1) -> bytes:
    from tests._helpers.dicom_damage.files import bytes_of

    dataset = pydicom.Dataset()
    dataset.SeriesInstanceUID, dataset.InstanceNumber = series, number
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    return bytes_of(dataset)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
def test_parts_are_found_however_the_answer_is_cut(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [dicom(number=1), b"", dicom(number=2) + b"\r\n--X", b"\r\n\r\n--"]
    monkeypatch.setattr("spleen.dicom.multipart._PIECE_BYTES", piece)
    body = b"preamble" + b"".join(b"\r\n--XX\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts)
    from spleen.dicom.multipart import write_parts

    with serving(kind=BOUNDARY, body=body + b"\r\n--XX--\r\nepilogue") as archive:
        import requests

        with requests.get(archive.url, stream=True, timeout=10) as response:
            files = write_parts(response, tmp_path)
    assert [file.read_bytes() for file in files] == parts
    assert [file.name for file in files] == ["000001.dcm", "000002.dcm", "000003.dcm", "000004.dcm"]


def test_missing_images_and_those_of_another_series_are_refused(tmp_path: Path) -> None:
    body = b"--XX\r\n\r\n" + dicom() + b"\r\n--XX--"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with serving(kind=BOUNDARY, body=body) as archive:
        with pytest.raises(InputError, match="sent 1 of the 7 images"):
            archive.fetch(STUDY, RemoteSeries(SERIES.uid, "1", "CT", "", 7), tmp_path / "a")
        with pytest.raises(InputError, match=r"an image of another series, 1\.2\.3\.4"):
            archive.fetch(STUDY, RemoteSeries("1.9", "1", "CT", "", None), tmp_path / "b")


def test_a_series_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs(tmp_path)
    monkeypatch.setattr("spleen.dicom.multipart._FREE_BYTES", free.f_bavail * free.f_frsize + 2**40)
    with (
        serving(kind="application/dicom", body=dicom()) as archive,
        pytest.raises(InputError, match="too little space on the disk"),
    ):
        archive.fetch(STUDY, SERIES, tmp_path)


@pytest.mark.slow
def test_a_server_that_is_not_there_or_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cannot be reached: Connection refused"):
        open_archive(f"http://127.0.0.1:{free_port()}/web").series_of(STUDY)
    monkeypatch.setattr(web, "_SECONDS", (0.3, 0.3))
    with serving(wait=1) as archive, pytest.raises(InputError, match=r"did not answer within 0\.3 s"):
        archive.series_of(STUDY)


def test_results_that_are_not_taken_are_told_and_stay(tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(dicom())
    failed = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}]}}'
    for kind in ("application/dicom+json", "application/dicom+json; charset=utf-8", "Application/DICOM+JSON"):
        with (
            serving(status=202, body=failed, kind=kind) as archive,
            pytest.raises(InputError, match=r"not take 1 of 1 results .*0xA700"),
        ):
            archive.store(STUDY, [tmp_path / "seg.dcm"])
    with serving(status=409) as archive, pytest.raises(InputError, match="answered 409"):
        archive.store(STUDY, [tmp_path / "seg.dcm"])
    assert (tmp_path / "seg.dcm").exists()
