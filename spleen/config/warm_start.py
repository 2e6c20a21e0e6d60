"""Runs that begin with given weights: those of another run, or those of an encoder from a file."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from spleen.config.factory import Parts
from spleen.config.schema import TrainConfig
from spleen.data.store.entry import StoredCase
from spleen.errors import InputError
from spleen.inference.choice import one_checkpoint, run_name
from spleen.inference.loading import spec_of
from spleen.models.checkpoint import check_finite, network_weights, read_checkpoint
from spleen.models.encoder import encoder_parts, unwrapped
from spleen.models.encoder_weights import read_encoder_weights, start_encoder
from spleen.models.spec import ModelSpec
from spleen.models.warm_start import CARRIED_OVER, ChannelArguments, LayerStart, WarmStart, folded, warm_start
from spleen.records.warm_start import WarmStartRecord, read_warm_start
from spleen.system.hashing import content_hash
from spleen.system.text import bullets, shortened

log = logging.getLogger(__name__)

# So many lines about layers fit on a screen; warm_start.json lists all layers.
_MOST_LINES = 20


def begin_warm(config: TrainConfig, parts: Parts, run_folder: Path, resumed: bool) -> WarmStartRecord | None:
    """Give the untrained network of `parts` its first weights, and freeze what `freeze` says.

    They come from `init_from` or `model.encoder_weights_file`. Returns what was carried over; None without these. A
    resumed run has its weights already, so the source is not read again. Raises InputError for a source that cannot be
    read, whose shapes do not fit, and for a frozen encoder that is not carried over as a whole.
    """
    if config.init_from is None and config.model.encoder_weights_file is None:
        return None
    if resumed:
        record = read_warm_start(run_folder)
    else:
        record = _carry_over(config, parts) if config.init_from is not None else _encoder_from_file(config, parts)
    if config.freeze is not None:
        for part in encoder_parts(parts.network):
            parts.network.get_submodule(part).requires_grad_(False)
    return record


def _carry_over(config: TrainConfig, parts: Parts) -> WarmStartRecord:
    assert config.init_from is not None
    checkpoint = one_checkpoint("init_from", Path(config.init_from))
    content = read_checkpoint(checkpoint)
    arguments = ChannelArguments(config.model.in_channels_argument, config.model.out_channels_argument)
    try:
        source_spec, weights = spec_of(content), network_weights(content)
        check_finite(weights)
        start = warm_start(parts.network, parts.spec, arguments, weights, source_spec)
    except InputError as error:
        raise InputError(f"init_from={checkpoint}: {error}") from error
    if config.freeze is not None:
        _check_encoder(parts.network, start.layers)
    parts.network.load_state_dict(dict(start.state))
    _describe(checkpoint, start, source_spec)
    _warn_of_other_channels(source_spec.preprocessing.n_channels, parts.spec.preprocessing.n_channels)
    return WarmStartRecord(
        source=run_name(checkpoint),
        checkpoint_sha256=content_hash(checkpoint, Path(config.cache_dir) / "hashes"),
        layers={layer.layer: layer.origin for layer in start.layers},
        carried_over=_parameters(parts.network, start),
        seen_images=source_spec.seen_images,
    )


def _encoder_from_file(config: TrainConfig, parts: Parts) -> WarmStartRecord:
    assert config.model.encoder_weights_file is not None
    path, spec = Path(config.model.encoder_weights_file), parts.spec
    name = config.model.network.get("encoder_name", type(unwrapped(parts.network)[1]).__name__)
    weights = read_encoder_weights(path)
    (part, *others) = encoder_parts(parts.network)
    if others:
        raise InputError(f"model.encoder_weights_file needs a network whose encoder is one module; {name} has several")
    encoder = parts.network.get_submodule(part)
    try:
        start = start_encoder(encoder, weights, spec.n_input_channels, spec.preprocessing.intensity)
    except InputError as error:
        raise InputError(
            f"model.encoder_weights_file={path} does not fit the encoder {name}: {error}. Give weights of the same "
            "architecture, or choose model.network.encoder_name accordingly"
        ) from error
    encoder.load_state_dict(dict(start.state))
    adapted = f"adapted from 3 colours to {spec.n_input_channels} input channels"
    unused = f"; not used: {shortened(start.unused, 3)}" if start.unused else ""
    log.info("encoder %s starts from %s: %s %s%s", name, path, start.first_layer, adapted, unused)
    layers = dict.fromkeys((f"{part}.{key.rpartition('.')[0]}" for key in start.state), CARRIED_OVER)
    layers[f"{part}.{start.first_layer.rpartition('.')[0]}"] = adapted
    return WarmStartRecord(
        source=path.name,
        checkpoint_sha256=content_hash(path, Path(config.cache_dir) / "hashes"),
        layers=layers,
        carried_over=tuple(f"{part}.{key}" for key, _ in encoder.named_parameters()),
        seen_images=(),
    )


def _parameters(network: nn.Module, start: WarmStart) -> tuple[str, ...]:
    prefix, _ = unwrapped(network)
    carried = {prefix + layer.layer for layer in start.layers if layer.carried_over}
    return tuple(name for name, _ in network.named_parameters() if name.rpartition(".")[0] in carried)


def _check_encoder(network: nn.Module, layers: Sequence[LayerStart]) -> None:
    """Raise InputError for an encoder with weights that are not of the source: frozen, they would never be learnt."""
    prefix, _ = unwrapped(network)
    parts = encoder_parts(network)
    wrong = [
        f"{layer.layer} ({layer.origin})"
        for layer in layers
        if not layer.is_complete and any(f"{prefix}{layer.layer}.".startswith(f"{part}.") for part in parts)
    ]
    if wrong:
        raise InputError(
            f"freeze=encoder needs an encoder that is carried over as a whole, and these layers are not: "
            f"{shortened(wrong, 3)}. Use the channels and context_slices of the source, or freeze=null"
        )


def _describe(checkpoint: Path, start: WarmStart, source_spec: ModelSpec) -> None:
    count = sum(layer.carried_over for layer in start.layers)
    log.info(
        "starting from %s (%s): %d of %d layers carried over%s",
        checkpoint,
        ", ".join(source_spec.preprocessing.classes.names),
        count,
        len(start.layers),
        bullets(folded(start.layers), _MOST_LINES),
    )


def _warn_of_other_channels(of_source: int, own: int) -> None:
    """Images are recognised by all their channels together."""
    if of_source != own:
        log.warning(
            "init_from was trained on images of %d channel(s), and these have %d, so it cannot be told which of them "
            "it has seen: make sure that it held out the test cases",
            of_source,
            own,
        )


def with_seen(spec: ModelSpec, record: WarmStartRecord | None) -> ModelSpec:
    """The specification whose seen images include those of the source: what it learnt from them is in the weights."""
    if record is None:
        return spec
    return replace(spec, seen_images=tuple(sorted({*spec.seen_images, *record.seen_images})))


def check_held_out(
    key: str,
    source: str,
    seen_images: Collection[str],
    validation: Sequence[StoredCase],
    test: Sequence[StoredCase],
    allow_seen_test: bool,
) -> None:
    """Raise InputError if the source of a setting was trained on test images of this run, unless `allow_seen_test`.

    `key` is the setting, init_from or roi_from. Test scores are what is published, and they would be of images that a
    network has seen; validation images only choose the epoch, and those of a source with the same split are among them,
    so they are a warning.
    """
    if not seen_images:
        log.warning("%s: %s does not record its images, so it may have seen the test images", key, source)
    seen = set(seen_images)
    in_val = [case.case_id for case in validation if case.fingerprint in seen]
    in_test = [case.case_id for case in test if case.fingerprint in seen]
    if in_val:
        log.warning(
            "%d of %d val images were train or val images of %s (%s): val scores and the chosen epoch are optimistic",
            len(in_val), len(validation), source, shortened(in_val, 3),
        )  # fmt: skip
    if not in_test:
        return
    what = (
        f"{len(in_test)} of {len(test)} test images were train or val images of {source} "
        f"({shortened(in_test, 3)}), so the test scores would not be of unseen images"
    )
    if not allow_seen_test:
        raise InputError(
            f"{key}: {what}. Give a run that held them out (the same fold), choose other test cases, or add "
            "allow_seen_test=true, for example for one volume whose test slices the source held out as well"
        )
    log.warning("%s (allow_seen_test=true)", what)
