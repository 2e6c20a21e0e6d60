"""Hydra's override grammar: quoting values, paths as they are typed, and renamed keys."""

import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from spleen.records.effect import DATA_PATHS
from spleen.records.renamed_keys import current_key

_RUN_KEYS = {"init_from", "roi_from"}
_PATH_KEYS = {
    *_RUN_KEYS,
    "output_dir",
    "cache_dir",
    "model.encoder_weights_file",
    "split.splits_file",
    "split.test_cases",
    *(f"data.{key}" for key in DATA_PATHS),
}

_OVERRIDE = re.compile(r"([+~]*)([^=@]*)(.*)", re.DOTALL)


def quoted(path: Path | str, quote: Quote = Quote.single) -> str:
    """A path as an override value that Hydra reads literally, whatever its characters (not quoted for a shell).

    Grammar: https://hydra.cc/docs/1.3/advanced/override_grammar/basic/
    """
    # Hydra's own class does not escape ${.
    return QuotedString(without_interpolation(str(path)), quote).with_quotes()


def without_interpolation(text: str) -> str:
    """The text with each ${ escaped, which OmegaConf would resolve; backslashes before it are doubled."""
    return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", text)


def key_of(override: str) -> str:
    """The key of an override as written: without `+`, `++` or `~` before it, and without its value."""
    match = _OVERRIDE.fullmatch(override)
    assert match is not None
    return match[2]


def with_literal_path(override: str, sweep: bool) -> str:
    """The override with its value in quotes if it is a path that the grammar would not read as it is typed.

    `~` is expanded. In a sweep, commas and functions such as glob(…) mean several paths, where the grammar reads them
    so. Quoted values, null and interpolations are left as they are.
    """
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in _PATH_KEYS or value in ("", "null") or "${" in value:
        return override
    parsed = parse_override(override)
    if parsed is not None and sweep and parsed.is_sweep_override() and "~" not in value:
        return override
    parts = value.split(",") if sweep and not Path(value).exists() else [value]
    return f"{key}={','.join(map(_literal, parts))}"


def with_absolute_path(override: str) -> str:
    """The override with its value absolute if it is a path, so that it names the same file from any folder.

    A run is resolved, as outputs/latest soon means another one. Null and interpolations are left as they are.
    """
    key, _, _ = override.partition("=")
    name = key.lstrip("+")
    parsed = parse_override(override) if name in _PATH_KEYS and "${" not in override else None
    if parsed is None or parsed.is_sweep_override() or not parsed.value():
        return override
    path = Path(str(parsed.value())).expanduser()
    return f"{key}={_literal(str(path.resolve() if name in _RUN_KEYS else path.absolute()))}"


def _literal(path: str) -> str:
    parsed = parse_override(f"key={path}")
    if parsed is not None and isinstance(parsed._value, QuotedString):
        return path
    expanded = str(Path(path).expanduser()) if path.startswith("~") else path
    parsed = parse_override(f"key={expanded}")
    read_as_typed = parsed is not None and not parsed.is_sweep_override() and parsed.value() == expanded
    return expanded if read_as_typed else quoted(expanded)


def parse_override(override: str) -> Override | None:
    """The override as Hydra reads it; None if it is against the grammar."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def with_current_key(override: str) -> str:
    """The override, with its key under the current name; anything else unchanged."""
    return _OVERRIDE.sub(lambda match: f"{match[1]}{current_key(match[2])}{match[3]}", override, count=1)
