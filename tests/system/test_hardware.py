"""Hardware that is not there is told; `auto` takes what pays."""

import os
from pathlib import Path

import pytest
import torch

from spleen.errors import InputError
from spleen.system.hardware import choose_accelerator, choose_precision, describe_hardware

N_GPUS = torch.cuda.device_count()


def test_a_gpu_that_is_not_there_is_told_with_what_to_use() -> None:
    wanted = [N_GPUS] if N_GPUS else 1
    with pytest.raises(InputError, match=r"trainer\.(accelerator=gpu|devices=\[\d+\]).* GPU"):
        choose_accelerator("gpu", wanted)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine is a Mac with Metal")
def test_metal_is_told_to_be_missing() -> None:
    with pytest.raises(InputError, match=r"trainer\.accelerator=mps.*trainer\.accelerator=cpu"):
        choose_accelerator("mps", 1)


def test_auto_takes_a_gpu_only_where_there_is_one_and_cpu_is_always_taken() -> None:
    assert choose_accelerator("cpu", 1) == "cpu"
    assert (choose_accelerator("auto", 1) == "gpu") == (N_GPUS > 0)


def test_precision_as_asked_for() -> None:
    assert choose_precision("32", "cpu") == "32-true"
    assert choose_precision("bf16", "cpu") == "bf16-mixed"
    assert choose_precision("16", "gpu") == "16-mixed"
    with pytest.raises(InputError, match=r"precision=16 needs a CUDA GPU.*precision=auto"):
        choose_precision("16", "cpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="processor flags are read from Linux")
def test_auto_precision_on_a_processor_agrees_with_what_torch_finds_in_it() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_precision("auto", "cpu") == ("bf16-mixed" if native else "32-true")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="compared with what Linux says")
def test_the_machine_is_described_as_the_system_does() -> None:
    hardware = describe_hardware()
    kib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    assert hardware.memory_gib == pytest.approx(kib / 2**20, abs=0.06)
    assert hardware.cores == os.cpu_count()
    assert hardware.system.startswith("Linux")
    assert (hardware.gpu is None) == (N_GPUS == 0)
    assert hardware.processor
