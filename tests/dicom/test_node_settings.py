from pathlib import Path

import pytest
import yaml

from spleen.dicom.node.settings import Caller, Retries, parse_peer, read_settings, settings_of
from spleen.errors import InputError


def minimal(folder: Path, **changes: object) -> dict:
    (folder / "run").mkdir(exist_ok=True)
    peer = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}
    return {"runs": [str(folder / "run")], "destinations": [peer], **changes}


def test_a_file_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "node.yaml"
    path.write_text(
        "runs: run\n"
        "ae_title: ORGANS\n"
        "folder: queue\n"
        "callers: [{ae_title: CT1, addresses: [10.1.0.0/16], find_port: 104}]\n"
        "destinations: [{ae_title: PACS, host: pacs.local, port: 104}]\n"
        "limits: {associations: 3}\n"
    )
    settings = read_settings(path, {"port": 104})
    assert settings.runs == (tmp_path / "run",)
    assert settings.folder == tmp_path / "queue"
    assert (settings.ae_title, settings.host, settings.port) == ("ORGANS", "127.0.0.1", 104)
    assert settings.callers == (Caller("CT1", ("10.1.0.0/16",), 104),)
    assert str(settings.destinations[0]) == "PACS@pacs.local:104"
    assert (settings.limits.associations, settings.limits.instance_mb) == (3, 2048)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quite_seconds": 3}, r"unknown key quite_seconds \(did you mean quiet_seconds\?\); allowed: runs, "),
        ({"limits": {"asociations": 3}}, r"unknown key limits\.asociations \(did you mean associations\?\)"),
        ({"port": "11112"}, "port must be a whole number; got '11112'"),
        ({"port": 70000}, "port must be 0 to 65535; got 70000"),
        ({"port": True}, "port must be a whole number; got True"),
        ({"quiet_seconds": -1}, "quiet_seconds must be a number from 0; got -1"),
        ({"quiet_seconds": float("nan")}, "quiet_seconds must be a number from 0; got nan"),
        ({"ae_title": "A" * 17}, "ae_title must be 1 to 16 ASCII characters"),
        ({"ae_title": "A\\B"}, "ae_title must be 1 to 16 ASCII characters"),
        ({"ae_title": "  "}, "ae_title must be 1 to 16 ASCII characters"),
        ({"review": "ask"}, "review must be one of send, hold; got 'ask'"),
        ({"destinations": []}, "destinations: give at least one"),
        ({"destinations": [{"ae_title": "A", "host": "h"}]}, r"destinations\[0\]\.port is missing"),
        ({"destinations": "PACS"}, r"destinations\[0\] must be a mapping with the keys ae_title, host, port, tls"),
        ({"destinations": [{"ae_title": "A", "host": "h", "port": 1, "tls": True}]}, "tls: true needs the key tls"),
        ({"callers": [{"addresses": ["pacs"]}]}, "addresses must be IP addresses or networks such as 10.0.0.0/8"),
        ({"host": "0.0.0.0"}, "host 0.0.0.0 can be reached from other machines; name those that may send"),
        ({"runs": ["nowhere"]}, "nowhere: no such file or folder"),
        ({"tls": {"certificate": "a", "key": "b", "ca": "c"}}, "a: no such file or folder"),
        ({"retries": {"attempts": 0}}, "retries.attempts must be a number from 1; got 0"),
    ],
)
def test_an_error_says_what_came_and_what_is_allowed(tmp_path: Path, changes: dict, message: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(minimal(tmp_path, **changes)))
    with pytest.raises(InputError, match=message):
        read_settings(path)


@pytest.mark.parametrize("text", ["", "[1, 2]", "runs: [", "\xff"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"node\.yaml (must be a mapping|is no YAML file)"):
        read_settings(path)


def test_callers_are_known_by_title_and_address() -> None:
    caller = Caller("CT1", ("10.1.0.0/16", "fd00::7"))
    assert caller.allows("CT1", "10.1.2.3")
    assert caller.allows("CT1", "::ffff:10.1.2.3")
    assert caller.allows("CT1", "fd00::7")
    assert not caller.allows("CT2", "10.1.2.3")
    assert not caller.allows("CT1", "10.2.2.3")
    assert not caller.allows("CT1", "127.0.0.1")
    assert Caller().allows("ANYONE", "127.0.0.1")
    assert not Caller().allows("ANYONE", "192.168.0.1")


def test_other_machines_are_allowed_by_name_only(tmp_path: Path) -> None:
    callers = [{"ae_title": "CT1", "addresses": ["10.1.0.0/16"]}]
    assert settings_of(minimal(tmp_path, host="0.0.0.0", callers=callers)).host == "0.0.0.0"


def test_the_pause_doubles_up_to_a_limit() -> None:
    retries = Retries(first_wait_seconds=5, longest_wait_seconds=60)
    assert [retries.wait_seconds(attempts) for attempts in (1, 2, 3, 4, 5, 6, 1000)] == [5, 10, 20, 40, 60, 60, 60]


def test_a_destination_on_the_command_line() -> None:
    assert parse_peer("PACS@10.0.0.1:104") == {"ae_title": "PACS", "host": "10.0.0.1", "port": 104}
    assert parse_peer("PACS@[::1]:104")["host"] == "::1"
    for text in ("PACS", "PACS@host", "@host:104", "PACS@host:port"):
        with pytest.raises(InputError, match="--to must be AE@HOST:PORT"):
            parse_peer(text)
