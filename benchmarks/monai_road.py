"""The job of one of our run folders, as MONAI's tutorials would train it: a process of benchmarks/compare_monai.py.

    python -m benchmarks.monai_road RUN FOLDER [--size HEIGHT WIDTH] [--device cuda] [--config FILE]

RUN gives volume, split, window, rate, schedule, epochs and augmentation. The volume is loaded once by dictionary
transforms; its slices, resized to a square as in MONAI's tutorial "2d_slices_from_3d_sampling", are in a CacheDataset;
a DataLoader with 2 workers applies random transforms; and BasicUNet with the widths of our U-Net is trained in 32 bits
with DiceCELoss and AdamW. An epoch draws as many slices as ours, about as many of them with foreground, since one pass
over so few slices would be a handful of steps. It ends with a validation that is scored by the same functions as ours.

Writes metrics.csv (a row after each epoch) and summary.json (slices/s) into FOLDER, with the names of our run folder.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Mapping
from math import radians
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resized,
    ScaleIntensityRanged,
)
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler

from spleen.evaluation.metrics.overlap import ConfusionCounts, count_confusion, dice
from spleen.imaging.probabilities import native_prediction
from spleen.imaging.slicing import InPlaneGrid
from spleen.training.optimiser import lr_factor

WORKERS = 2
_KEYS = ("image", "label")
_AXES = ("sagittal", "coronal", "axial")

Settings = Mapping[str, Any]
Slice = dict[str, Tensor]


def main() -> None:
    """Train and validate, epoch by epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="one of our run folders, whose data are one volume")
    parser.add_argument("folder", type=Path, help="where metrics.csv and summary.json are written")
    parser.add_argument(
        "--size", type=int, nargs=2, help="height and width of the slices, pixels; default: img_size twice"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--config", type=Path, help="the settings, if other than those of RUN")
    arguments = parser.parse_args()
    settings = yaml.safe_load((arguments.config or arguments.run / "config.yaml").read_text())
    (split,) = json.loads((arguments.run / "split.json").read_text())["cases"].values()
    size = tuple(arguments.size or [settings["img_size"]] * 2)
    set_determinism(settings["seed"])
    slices = _load_slices(settings)
    train = _training_loader([slices[number] for number in split["train"]], settings, size)
    val = _validation_loader([slices[number] for number in split["val"]], settings["batch_size"], size)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    _fit(settings, train, val, torch.device(arguments.device), arguments.folder)


def _load_slices(settings: Settings) -> list[Slice]:
    """All slices of the volume along the axis; `reference` is the label on the native plane."""
    window = settings["intensity"]
    low, high = (window["window_level"] + sign * window["window_width"] / 2 for sign in (-1, 1))
    load = Compose(
        [
            LoadImaged(_KEYS),
            EnsureChannelFirstd(_KEYS),
            Orientationd(_KEYS, axcodes="RAS", labels=None),
            ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=-1.0, b_max=1.0, clip=True),
        ]
    )
    volume = CacheDataset([{key: settings["data"][key] for key in _KEYS}], load, progress=False)[0]
    axis = 1 + _AXES.index(settings["axis"])  # the first dimension is the channel
    image, label = (volume[key].as_tensor() for key in _KEYS)
    values = settings["data"]["label_values"]
    organ = label > 0 if values is None else torch.isin(label, torch.tensor(values, dtype=label.dtype))
    return [
        {"image": plane, "label": mask.float(), "reference": mask[0].to(torch.uint8)}
        for plane, mask in zip(image.unbind(axis), organ.unbind(axis), strict=True)
    ]


def _training_loader(slices: list[Slice], settings: Settings, size: tuple[int, ...]) -> DataLoader:
    """Random slices, about `foreground_fraction` of them with foreground; labels are resized with them."""
    loader = settings["loader"]
    with_organ = torch.tensor([bool(each["label"].any()) for each in slices])
    n_organ = max(1, int(with_organ.sum()))
    # Ours draws this fraction from the slices with foreground, and the rest from all of them.
    weights = (1 - loader["foreground_fraction"]) / len(slices) + loader["foreground_fraction"] / n_organ * with_organ
    sampler = WeightedRandomSampler(weights.tolist(), loader["slices_per_epoch"])
    # Plain "nearest", as in many tutorials, moves the label by up to half a pixel against the image, which costs Dice.
    resize = Resized(_KEYS, size, mode=("bilinear", "nearest-exact"))
    data = CacheDataset(
        [{key: each[key] for key in _KEYS} for each in slices],
        Compose([resize, *_random_transforms(settings["augment"], size)]),
        progress=False,
    )
    return DataLoader(
        data,
        batch_size=settings["batch_size"],
        sampler=sampler,
        num_workers=WORKERS,
        pin_memory=torch.cuda.is_available(),
    )


def _random_transforms(augment: Settings, size: tuple[int, ...]) -> list[object]:
    """MONAI's counterparts of our `light`, with the same probabilities and ranges."""
    contrast, gamma = augment["contrast"], 1 + augment["gamma"]
    offered: Mapping[str, Callable[[float], object]] = {
        "affine": lambda p: RandAffined(
            _KEYS,
            prob=p,
            rotate_range=radians(augment["rotation_deg"]),
            shear_range=augment["shear"],
            translate_range=[augment["translation"] * side for side in size],
            scale_range=augment["scale"],
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        "noise": lambda p: RandGaussianNoised("image", prob=p, std=augment["noise_std"]),
        "brightness": lambda p: RandShiftIntensityd("image", prob=p, offsets=augment["brightness"]),
        "contrast": lambda p: RandScaleIntensityd("image", prob=p, factors=contrast),
        "gamma": lambda p: RandAdjustContrastd("image", prob=p, gamma=(1 / gamma, gamma)),
    }
    probabilities = {name: augment[f"{name}_probability"] for name in offered}
    return [make(probabilities[name]) for name, make in offered.items() if probabilities[name]]


def _validation_loader(slices: list[Slice], batch_size: int, size: tuple[int, ...]) -> DataLoader:
    data = CacheDataset(slices, Resized("image", size, mode="bilinear"), progress=False)
    return DataLoader(data, batch_size=batch_size, num_workers=WORKERS)


def _fit(settings: Settings, train: DataLoader, val: DataLoader, device: torch.device, folder: Path) -> None:
    width, depth = settings["model"]["network"]["width"], settings["model"]["network"]["depth"]
    features = [*(width * 2**level for level in range(depth + 1)), width]  # BasicUNet wants six: a depth of 4
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=2, features=features).to(device)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    adamw, schedule = _optimiser(network, settings, settings["epochs"] * len(train))
    n_slices, seconds = 0, 0.0
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "val/dice"])
        for epoch in range(settings["epochs"]):
            network.train()
            before = 0.0
            for batch in train:
                image, label = batch["image"].to(device), batch["label"].to(device)
                adamw.zero_grad()
                step_loss = loss(network(image), label)
                step_loss.backward()
                adamw.step()
                schedule.step()
                step_loss.item()  # the tutorials sum it up, and so wait for a GPU
                now = time.perf_counter()
                if before:  # the first step of an epoch waits for new workers; the steady state is asked for
                    n_slices, seconds = n_slices + len(image), seconds + now - before
                before = now
            rows.writerow([epoch, _validate(network, val, device)])
            file.flush()
    (folder / "summary.json").write_text(json.dumps({"train": {"slices_per_second": n_slices / seconds}}))


def _optimiser(
    network: nn.Module, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    given, schedule = settings["optimiser"], settings["schedule"]
    betas = given["beta1"], given["beta2"]
    adamw = torch.optim.AdamW(network.parameters(), settings["lr"], betas, weight_decay=given["weight_decay"])
    kind, power, final, warmup = (schedule[key] for key in ("kind", "power", "final_factor", "warmup_fraction"))
    return adamw, torch.optim.lr_scheduler.LambdaLR(
        adamw, lambda step: lr_factor(step, steps, round(warmup * steps), kind, power, final)
    )


@torch.no_grad()
def _validate(network: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Dice of the case on its native planes."""
    network.eval()
    counts = torch.zeros(1, 4, dtype=torch.int64)
    for batch in loader:
        logits, reference = network(batch["image"].to(device)), batch["reference"].to(device)
        size = tuple(logits.shape[2:])
        grid = InPlaneGrid(tuple(reference.shape[1:]), size, size)
        counts += count_confusion(native_prediction(logits, grid), reference, n_classes=2).cpu()
    return float(dice(ConfusionCounts(*counts[None].unbind(-1))))


if __name__ == "__main__":
    main()
