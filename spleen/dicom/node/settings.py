"""The settings of a node, from a YAML file; every field is one of its keys."""

import difflib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from spleen.errors import InputError

ANY = "*"
"""As AE title of a caller: whatever it calls itself."""
LOOPBACK = ("127.0.0.0/8", "::1")
# PS3.5: up to 16 characters of the default repertoire, without backslash and control characters.
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
_LARGEST_PORT = 65535
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Caller:
    """Who may send series."""

    ae_title: str = ANY
    """Its AE title; * for any. A title is no proof of identity: see `addresses`, and TLS."""
    addresses: tuple[str, ...] = LOOPBACK
    """IP addresses or networks that it may call from."""
    find_port: int | None = None
    """Port at which it answers C-FIND: a series is whole as soon as all instances that it lists have arrived."""

    def allows(self, ae_title: str, address: str) -> bool:
        """Whether an association with this AE title from this address is its own."""
        called = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(called, "ipv4_mapped", None) or called
        return self.ae_title in (ANY, ae_title) and any(
            mapped in ipaddress.ip_network(each, strict=False) for each in self.addresses
        )


@dataclass(frozen=True)
class Peer:
    """An application entity that answers, such as one that results are sent to."""

    ae_title: str
    host: str
    port: int
    tls: bool = False
    """Whether to connect by TLS, with the certificate and the authority of `tls`."""

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Tls:
    """Certificates (PEM files)."""

    certificate: Path
    """The node's own."""
    key: Path
    """Its private key, not encrypted."""
    ca: Path
    """The authority that both sides' certificates must be signed by."""


@dataclass(frozen=True)
class Limits:
    """What a caller can use up."""

    associations: int = 10
    """At the same time."""
    instance_mb: int = 2048
    """Largest instance that is received, in MB."""
    free_disk_gb: float = 2.0
    """Below this, instances are refused with status A700, out of resources."""
    network_seconds: float = 30.0
    """After so long without a word, or with half of one, a connection is closed."""
    predict_seconds: float = 3600.0
    """After so long, a prediction is stopped and its series has failed."""


@dataclass(frozen=True)
class Retries:
    """What happens when a destination does not take a result."""

    attempts: int = 10
    """Then the series has failed; `spleen dicom release` starts again."""
    first_wait_seconds: float = 5.0
    """Before the second attempt; it doubles with each."""
    longest_wait_seconds: float = 900.0

    def wait_seconds(self, attempts: int) -> float:
        """The pause after this many failed attempts."""
        return min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** min(attempts - 1, 60))


@dataclass(frozen=True)
class NodeSettings:
    """The settings of a node."""

    runs: tuple[Path, ...]
    """Run folders or checkpoints; several are averaged."""
    destinations: tuple[Peer, ...]
    """Where the results go: each to all of them."""
    ae_title: str = "SPLEEN"
    """The node's own."""
    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default. 0.0.0.0 is all of IPv4."""
    port: int = 11112
    folder: Path = Path("dicom_node")
    """The queue: what was received, results until they are delivered, and a record of each series."""
    callers: tuple[Caller, ...] = (Caller(),)
    """Who may send; anyone on this machine by default."""
    quiet_seconds: float = 30.0
    """A series is whole when nothing of it has arrived for so long, or when its sender says so (`find_port`)."""
    patience_seconds: float = 900.0
    """How long to wait for instances that the sender lists and that do not arrive; then the series has failed."""
    review: Literal["send", "hold"] = "send"
    """Results of low confidence: send them, marked REVIEW, or hold them until `spleen dicom release`."""
    keep_days: float = 7.0
    """How long the images and results of delivered series are kept."""
    device: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Where to predict."""
    codes: Path | None = None
    """SNOMED CT codes of further classes, as for `spleen predict --codes`."""
    tls: Tls | None = None
    """With it, callers must use TLS with a certificate of the authority."""
    limits: Limits = field(default_factory=Limits)
    retries: Retries = field(default_factory=Retries)


def read_settings(path: Path, overrides: Mapping[str, Any] | None = None) -> NodeSettings:
    """The settings in a YAML file, whose relative paths start at the file's folder; `overrides` replace its keys.

    Raises InputError for a file that is no such YAML, for unknown keys, and as `checked` does.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping with the keys {_listed(NodeSettings)}")
    try:
        settings = _build(NodeSettings, {**content, **(overrides or {})}, "")
        return checked(_placed(settings, path.parent, frozenset(overrides or ())))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def settings_of(values: Mapping[str, Any]) -> NodeSettings:
    """The settings with these values of its keys. Raises InputError as `read_settings` does."""
    return checked(_build(NodeSettings, values, ""))


def checked(settings: NodeSettings) -> NodeSettings:
    """The same settings. Raises InputError for values that no node can have, and for missing files."""
    _check_network(settings)
    _check_numbers(settings)
    if not settings.runs:
        raise InputError("runs: give at least one run folder or checkpoint")
    if not settings.destinations:
        raise InputError(
            "destinations: give at least one (ae_title, host, port), or on the command line --to AE@HOST:PORT"
        )
    if any(each.ae_title == ANY for each in settings.destinations):
        raise InputError(f"destinations: an AE title cannot be {ANY}")
    if settings.tls is None and any(each.tls for each in settings.destinations):
        raise InputError("destinations: tls: true needs the key tls (certificate, key, ca)")
    files = () if settings.tls is None else (settings.tls.certificate, settings.tls.key, settings.tls.ca)
    for path in (*settings.runs, *files, *(() if settings.codes is None else (settings.codes,))):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if not is_loopback(settings.host) and settings.callers == (Caller(),):
        raise InputError(
            f"host {settings.host} can be reached from other machines; name those that may send, under callers "
            "(ae_title, addresses)"
        )
    return settings


def _check_network(settings: NodeSettings) -> None:
    titles = [*(each.ae_title for each in settings.callers), *(each.ae_title for each in settings.destinations)]
    for title in (settings.ae_title, *titles):
        if not _AE_TITLE.fullmatch(title) or not title.strip():
            raise InputError(f"ae_title must be 1 to 16 ASCII characters without backslash; got {title!r}")
    ports = [settings.port, *(peer.port for peer in settings.destinations)]
    for port in (*ports, *(each.find_port for each in settings.callers if each.find_port is not None)):
        if not 0 <= port <= _LARGEST_PORT:
            raise InputError(f"port must be 0 to {_LARGEST_PORT}; got {port}")
    for address in (address for caller in settings.callers for address in caller.addresses):
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError as error:
            raise InputError(
                f"addresses must be IP addresses or networks such as 10.0.0.0/8; got {address!r}"
            ) from error


def _check_numbers(settings: NodeSettings) -> None:
    limits, retries = settings.limits, settings.retries
    for name, value, smallest in (
        ("quiet_seconds", settings.quiet_seconds, 0.0),
        ("patience_seconds", settings.patience_seconds, 0.0),
        ("keep_days", settings.keep_days, 0.0),
        ("limits.associations", limits.associations, 1),
        ("limits.instance_mb", limits.instance_mb, 1),
        ("limits.free_disk_gb", limits.free_disk_gb, 0.0),
        ("limits.network_seconds", limits.network_seconds, 0.1),
        ("limits.predict_seconds", limits.predict_seconds, 1.0),
        ("retries.attempts", retries.attempts, 1),
        ("retries.first_wait_seconds", retries.first_wait_seconds, 0.0),
        ("retries.longest_wait_seconds", retries.longest_wait_seconds, 0.0),
    ):
        if not smallest <= value < float("inf"):
            raise InputError(f"{name} must be a number from {smallest:g}; got {value}")


def parse_peer(text: str) -> dict[str, Any]:
    """The keys of a peer from AE@HOST:PORT. Raises InputError for anything else."""
    title, _, address = text.rpartition("@")
    host, _, port = address.rpartition(":")
    if not title or not host or not port.isdecimal():
        raise InputError(f"--to must be AE@HOST:PORT, such as ORTHANC@127.0.0.1:4242; got {text!r}")
    return {"ae_title": title, "host": host.strip("[]"), "port": int(port)}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _placed(settings: NodeSettings, folder: Path, given: frozenset[str]) -> NodeSettings:
    """The settings with the file's relative paths taken from its folder, but not those `given` elsewhere."""
    changes: dict[str, Any] = {}
    if "runs" not in given:
        changes["runs"] = tuple(folder / path for path in settings.runs)
    if "folder" not in given:
        changes["folder"] = folder / settings.folder
    if settings.codes is not None:
        changes["codes"] = folder / settings.codes
    if (tls := settings.tls) is not None:
        changes["tls"] = Tls(folder / tls.certificate, folder / tls.key, folder / tls.ca)
    return replace(settings, **changes)


def _build(record: type[_Record], content: Any, where: str) -> _Record:
    """A record from a mapping; its keys are the fields, and `where` is what to call the mapping."""
    if not isinstance(content, dict):
        raise InputError(f"{where} must be a mapping with the keys {_listed(record)}; got {content!r}")
    names = [each.name for each in fields(record)]  # type: ignore[arg-type]
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"unknown key {_path(where, key)}{hint}; allowed: {_listed(record)}")
    for each in fields(record):  # type: ignore[arg-type]
        if each.default is MISSING and each.default_factory is MISSING and each.name not in content:
            raise InputError(f"{_path(where, each.name)} is missing")
    hints = get_type_hints(record)
    return record(**{key: _value(hints[key], value, _path(where, key)) for key, value in content.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """The value as the type says. Raises InputError."""
    options = get_args(kind)
    if get_origin(kind) is Literal:
        if value not in options:
            raise InputError(f"{where} must be one of {', '.join(options)}; got {value!r}")
        return value
    if NoneType in options:
        return None if value is None else _value(options[0], value, where)
    if get_origin(kind) is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(options[0], each, f"{where}[{n}]") for n, each in enumerate(values))
    if hasattr(kind, "__dataclass_fields__"):
        return _build(kind, value, where)
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, bool):
        raise InputError(f"{where} must be a whole number; got {value!r}")
    if kind in (int, str, bool) and isinstance(value, kind):
        return value
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    raise InputError(f"{where} must be {words[kind]}; got {value!r}")


def _path(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _listed(record: type) -> str:
    return ", ".join(each.name for each in fields(record))
