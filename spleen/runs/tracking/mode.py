"""Whether wandb runs online, offline or not at all, resolved without importing it, prompting or network access."""

import configparser
import netrc
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from spleen.errors import InputError

WandbMode = Literal["auto", "online", "offline", "disabled"]
ResolvedMode = Literal["online", "offline", "disabled"]

# Values that wandb accepts in WANDB_MODE and in its settings files; "run" and "dryrun" are legacy names.
_MODE_NAMES: dict[str, ResolvedMode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
# wandb's cloud under its current and its former host name; keys stored for the former are still read.
_CLOUD_HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")


def resolve_mode(mode: WandbMode) -> ResolvedMode:
    """Resolve ``auto`` without importing wandb, using the network or prompting.

    ``auto`` follows WANDB_MODE, then wandb's settings file if that says offline or disabled. Otherwise it means
    online if an API key is configured for the server in use, and offline if not.

    Raises:
        InputError: online was requested (by ``mode`` or by WANDB_MODE) and no key is configured, or the value
            of WANDB_MODE is unknown.
    """
    requested_by = "logger.mode=online"
    if mode == "auto":
        requested_by = "WANDB_MODE=online"
        mode = _environment_mode() or _default_mode()
    if mode == "online" and not has_api_key():
        raise InputError(
            f"{requested_by} needs a wandb API key for {base_url()}, but none is configured. "
            "Run `wandb login` once, set WANDB_API_KEY, or use logger.mode=offline."
        )
    return mode


def _environment_mode() -> ResolvedMode | None:
    value = os.environ.get("WANDB_MODE", "")
    if value and value not in _MODE_NAMES:
        raise InputError(f"WANDB_MODE must be online, offline or disabled; got {value!r}")
    return _MODE_NAMES.get(value)


def _default_mode() -> ResolvedMode:
    stored = _MODE_NAMES.get(_settings_file_values().get("mode", ""))
    if stored == "offline" or stored == "disabled":
        return stored
    return "online" if has_api_key() else "offline"


def has_api_key() -> bool:
    """Whether a key is configured for the server in use, in one of the places that wandb itself checks."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(base_url()).netloc
    hosts = _CLOUD_HOSTS if host == _CLOUD_HOSTS[0] else (host,)
    return any(_netrc_has_key(name) for name in hosts) or bool(_settings_file_values().get("api_key"))


def base_url() -> str:
    """The server in use."""
    configured = os.environ.get("WANDB_BASE_URL") or _settings_file_values().get("base_url")
    return configured or f"https://{_CLOUD_HOSTS[0]}"


def _netrc_has_key(host: str) -> bool:
    named = os.environ.get("NETRC")
    name = named or ("~/.netrc" if Path("~/.netrc").expanduser().exists() else "~/_netrc")
    try:
        # Not authenticators(): it falls back to the file's default entry, a password for other hosts.
        entry = netrc.netrc(Path(name).expanduser()).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    return entry is not None and bool(entry[2])


def _settings_file_values() -> dict[str, str]:
    """The settings stored by `wandb login`, `wandb offline` and `wandb init`; the working folder's take precedence."""
    user_folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    local_folder = Path(".wandb") if Path(".wandb").exists() else Path("wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([user_folder / "settings", local_folder / "settings"])
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}
