"""Weights for a new network from a trained one, also with other classes, image channels or context slices.

A layer is carried over where its shape is the same. Of the layers at the image, the channels are matched by their place
(slice offset and image channel), of those at the logits by the name of the class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.models.encoder import unwrapped
from spleen.models.factory import build_part
from spleen.models.spec import ModelSpec

Weights = Mapping[str, Tensor]
End = Literal["image", "logits"]

CARRIED_OVER = "carried over"
BACKGROUND = "background"


@dataclass(frozen=True)
class ChannelArguments:
    """The names of a network's arguments for its numbers of input channels and of classes."""

    inputs: str
    outputs: str


@dataclass(frozen=True)
class LayerStart:
    """What a layer starts from."""

    layer: str
    """Its name inside the network, such as encoder.0.1."""
    origin: str
    """In words; `CARRIED_OVER` if all of it comes from the source."""
    carried_over: bool
    """Whether any of it comes from the source."""
    is_complete: bool
    """Whether the source has given all of it, so that nothing is fresh or zero."""


@dataclass(frozen=True)
class WarmStart:
    """A network's new state, and where each layer comes from."""

    state: Mapping[str, Tensor]
    """For `load_state_dict` of the network of `build_network`."""
    layers: tuple[LayerStart, ...]


def warm_start(
    network: nn.Module, spec: ModelSpec, arguments: ChannelArguments, source: Weights, source_spec: ModelSpec
) -> WarmStart:
    """The state of an untrained network with what fits from the weights of a trained one.

    `network` is that of `build_network(spec)`, `source` the weights of the one of `source_spec`. Of a context that has
    grown, the weights of the new slices are zero, so that the network first computes what the trained one did; of one
    that has shrunk, the weights of a slice that is gone are added to those of its nearest kept neighbour, which looks
    much the same. Raises InputError if no convolution or other matrix of weights fits.
    """
    prefix, inner = unwrapped(network)
    fresh = inner.state_dict()
    source_prefix = "network." * (2 if isinstance(source_spec.crop_size, int) else 1)
    old = {name.removeprefix(source_prefix): value for name, value in source.items()}
    fit = _Fit(spec, source_spec, _channel_dimensions(spec, arguments, fresh))
    state = {name: value.clone() for name, value in fresh.items()}
    layers = []
    for layer, names in groupby(fresh, lambda name: name.rpartition(".")[0]):
        of_layer = list(names)
        fitted = {name: fit.fitted(name, old.get(name), fresh[name]) for name in of_layer}
        # A bias without its weight means nothing.
        carried = all(value is not None for value in fitted.values())
        complete = carried and not any(fit.has_new_channels(name) for name in of_layer)
        if carried:
            state |= {name: value for name, value in fitted.items() if value is not None}
        layers.append(LayerStart(layer, _origin(of_layer, old, fresh, fit, carried), carried, complete))
    carried_layers = {each.layer for each in layers if each.carried_over}
    if not any(value.ndim > 1 and name.rpartition(".")[0] in carried_layers for name, value in fresh.items()):
        raise InputError(_nothing_fits(inner, spec, source_spec))
    return WarmStart({prefix + name: value for name, value in state.items()}, tuple(layers))


def folded(layers: Sequence[LayerStart]) -> list[str]:
    """One line for each run of layers that start alike: "encoder.0.1 … decoder.3.4 (44 layers): carried over"."""
    lines = []
    for origin, group in groupby(layers, lambda layer: layer.origin):
        names = [layer.layer for layer in group]
        shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} layers)"
        lines.append(f"{shown}: {origin}")
    return lines


class _Fit:
    """Fits tensors of the source into those of the new network."""

    def __init__(self, spec: ModelSpec, source_spec: ModelSpec, ends: Mapping[str, Mapping[int, End]]) -> None:
        self._ends = ends
        self._places: dict[End, list[object]] = {"image": _image_places(spec), "logits": _class_names(spec)}
        self._old_places: dict[End, list[object]] = {
            "image": _image_places(source_spec),
            "logits": _class_names(source_spec),
        }

    def fitted(self, name: str, old: Tensor | None, fresh: Tensor) -> Tensor | None:
        """The tensor with what is carried over; None if it does not fit."""
        ends = self._ends.get(name, {})
        if old is None or old.ndim != fresh.ndim or old.is_floating_point() != fresh.is_floating_point():
            return None
        for dim in range(fresh.ndim):
            factor = self._per_place(dim, ends, fresh)
            expected = fresh.shape[dim] if factor is None else factor * len(self._old_places[ends[dim]])
            if old.shape[dim] != expected:
                return None
        result, value = fresh.clone(), old.to(fresh.dtype, copy=True)
        here, there = [], []
        for dim in range(fresh.ndim):
            factor = self._per_place(dim, ends, fresh)
            if factor is None:
                here.append(torch.arange(fresh.shape[dim]))
                there.append(here[-1])
                continue
            places, old_places = self._places[ends[dim]], self._old_places[ends[dim]]
            both = [place for place in places if place in old_places]
            here.append(_indices([places.index(place) for place in both], factor))
            there.append(_indices([old_places.index(place) for place in both], factor))
            if ends[dim] == "image" and fresh.ndim > 1:
                added = [number for number, place in enumerate(places) if place not in old_places]
                result.index_fill_(dim, _indices(added, factor), 0)
                for gone, nearest in _nearest_kept(old_places, both).items():
                    value.index_add_(
                        dim, _indices([nearest], factor), value.index_select(dim, _indices([gone], factor))
                    )
        if fresh.ndim == 0:
            return value
        result[torch.meshgrid(*here, indexing="ij")] = value[torch.meshgrid(*there, indexing="ij")]
        return result

    def _per_place(self, dim: int, ends: Mapping[int, End], fresh: Tensor) -> int | None:
        """Channels of this dimension for each image channel or class; None for a dimension inside the network."""
        if dim not in ends:
            return None
        return fresh.shape[dim] // len(self._places[ends[dim]])

    def has_new_channels(self, name: str) -> bool:
        """Whether some of the tensor's input channels or classes are not in the source."""
        return any(set(self._places[end]) - set(self._old_places[end]) for end in self._ends.get(name, {}).values())

    def origin(self, name: str) -> list[str]:
        """How the ends of a tensor that fits were matched, in words; empty if all of it comes from the source."""
        words = []
        ends = set(self._ends.get(name, {}).values())
        if "image" in ends and (text := self._image_origin()):
            words.append(text)
        if "logits" in ends and (text := self._class_origin()):
            words.append(text)
        return words

    def _image_origin(self) -> str:
        places, old_places = self._places["image"], self._old_places["image"]
        added, gone = len(set(places) - set(old_places)), len(set(old_places) - set(places))
        texts = [f"{len(set(places) & set(old_places))} of {len(places)} input channels carried over"]
        texts += [f"{added} new start at zero"] * bool(added)
        texts += [f"{gone} of the source's are left out, context slices added to the nearest kept"] * bool(gone)
        return ", ".join(texts) if added or gone else ""

    def _class_origin(self) -> str:
        names, old_names = self._places["logits"], self._old_places["logits"]
        both = [str(name) for name in names if name in old_names]
        new = [str(name) for name in names if name not in old_names]
        dropped = [str(name) for name in old_names if name not in names]
        if not new and not dropped and names == old_names:
            return ""
        texts = [f"classes {', '.join(both)} carried over"]
        texts += [f"{', '.join(new)} fresh"] * bool(new)
        texts += [f"{', '.join(dropped)} of the source left out"] * bool(dropped)
        return ", ".join(texts)


def _indices(places: Sequence[int], factor: int) -> Tensor:
    """The channels of these places, of which each has `factor` consecutive ones."""
    channels = [place * factor + number for place in places for number in range(factor)]
    return torch.tensor(channels, dtype=torch.long)


def _nearest_kept(old_places: list[object], both: list[object]) -> dict[int, int]:
    """For each input channel that is gone, that of the nearest kept slice with the same image channel."""
    nearest = {}
    for number, place in enumerate(old_places):
        if place in both or not isinstance(place, tuple):
            continue
        offset, channel = place
        offsets = [kept[0] for kept in both if isinstance(kept, tuple) and kept[1] == channel]
        if offsets:
            closest = min(offsets, key=lambda kept: abs(kept - offset))
            nearest[number] = old_places.index((closest, channel))
    return nearest


def _image_places(spec: ModelSpec) -> list[object]:
    """The place of each input channel, slice by slice: offset from the middle slice, and image channel."""
    offsets = range(-spec.context_slices, spec.context_slices + 1)
    return [(offset, channel) for offset in offsets for channel in range(spec.preprocessing.n_channels)]


def _class_names(spec: ModelSpec) -> list[object]:
    return [BACKGROUND, *spec.preprocessing.classes.names]


def _channel_dimensions(spec: ModelSpec, arguments: ChannelArguments, fresh: Weights) -> dict[str, dict[int, End]]:
    """For each tensor the dimensions whose size depends on the number of input channels, or of classes.

    Found by building the network with one more of them, since every network names and arranges its layers in its own
    way. Empty for a network that cannot be built with one more.
    """
    found: dict[str, dict[int, End]] = {}
    ends: tuple[tuple[End, str], ...] = (("image", arguments.inputs), ("logits", arguments.outputs))
    for end, argument in ends:
        other = {**spec.network, argument: spec.network[argument] + 1}
        try:
            shapes = _shapes(other)
        except InputError:
            continue
        for name, value in fresh.items():
            shape = shapes.get(name)
            if shape is None or len(shape) != value.ndim:
                continue
            for dim, (size, larger) in enumerate(zip(value.shape, shape, strict=True)):
                if larger > size and size % (larger - size) == 0:
                    found.setdefault(name, {})[dim] = end
    return found


def _shapes(setting: Mapping[str, object]) -> dict[str, torch.Size]:
    """The shapes of a network's tensors; the state of the random generators stays as it is."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # without memory for the weights
                network = build_part("model.network", setting)
        except InputError:
            network = build_part("model.network", setting)
    return {name: value.shape for name, value in network.state_dict().items()}


def _origin(names: Sequence[str], old: Weights, fresh: Weights, fit: _Fit, carried: bool) -> str:
    if carried:
        words = dict.fromkeys(word for name in names for word in fit.origin(name))
        return "; ".join(words) or CARRIED_OVER
    if absent := [name for name in names if name not in old]:
        return "fresh, not in the source" if len(absent) == len(names) else "fresh, not all of it in the source"
    name = max(names, key=lambda each: fresh[each].ndim)
    return f"fresh, shape {_shape(fresh[name])} and in the source {_shape(old[name])}"


def _shape(value: Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "1"


def _nothing_fits(network: nn.Module, spec: ModelSpec, source_spec: ModelSpec) -> str:
    source = ", ".join(f"{key}={value}" for key, value in source_spec.network.items() if key != "_target_")
    now = ", ".join(f"{key}={value}" for key, value in spec.network.items() if key != "_target_")
    return (
        f"none of its layers fits: it is a {str(source_spec.network['_target_']).rpartition('.')[2]} ({source}), and "
        f"this run trains a {type(network).__name__} ({now}). Choose the same model and width; classes, channels and "
        "context_slices may differ"
    )
