"""Missing hardware is an error; `auto` selects what is available."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from spleen.errors import InputError
from spleen.system.hardware import choose_accelerator, choose_hardware, choose_precision, describe_hardware

N_GPUS = torch.cuda.device_count()


def test_a_missing_gpu_is_an_error_that_names_the_setting() -> None:
    wanted = [N_GPUS] if N_GPUS else 1
    with pytest.raises(InputError, match=r"trainer\.(accelerator=gpu|devices=\[\d+\]).* GPU"):
        choose_accelerator("gpu", wanted)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine is a Mac with Metal")
def test_missing_metal_is_an_error_that_suggests_the_cpu() -> None:
    with pytest.raises(InputError, match=r"trainer\.accelerator=mps.*trainer\.accelerator=cpu"):
        choose_accelerator("mps", 1)


def test_auto_selects_a_gpu_only_if_there_is_one_and_cpu_always_works() -> None:
    assert choose_accelerator("cpu", 1) == "cpu"
    assert (choose_accelerator("auto", 1) == "gpu") == (N_GPUS > 0)


def test_the_requested_precision_is_used_or_refused() -> None:
    assert choose_precision("32", "cpu") == "32-true"
    assert choose_precision("bf16", "cpu") == "bf16-mixed"
    assert choose_precision("16", "gpu") == "16-mixed"
    with pytest.raises(InputError, match=r"precision=16 needs a CUDA GPU.*precision=auto"):
        choose_precision("16", "cpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="CPU flags are read from /proc/cpuinfo")
def test_auto_precision_on_a_cpu_agrees_with_the_features_torch_detects() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_precision("auto", "cpu") == ("bf16-mixed" if native else "32-true")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="compared with /proc/meminfo")
def test_the_described_hardware_agrees_with_the_operating_system() -> None:
    hardware = describe_hardware()
    kib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    assert hardware.memory_gib == pytest.approx(kib / 2**20, abs=0.06)
    assert hardware.cores == os.cpu_count()
    assert hardware.system.startswith("Linux")
    assert (hardware.gpu is None) == (N_GPUS == 0)
    assert hardware.processor


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("cuda", "32", "device must be one of 'auto', 'cpu', 'gpu', 'mps'; got 'cuda'"),
        ("CPU", "32", "device must be .*'cpu'.*; got 'CPU'"),
        ("cpu", "fp16", "precision must be one of 'auto', '32', 'bf16', '16'; got 'fp16'"),
        ("cpu", 16, "precision must be .*'16'; got 16"),
    ],
)
def test_an_unknown_device_or_precision_is_reported_with_the_known_ones(
    device: Any, precision: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_hardware(device, precision)
