"""Hardware of this machine: accelerator, the best precision for it, and a description for the record."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil
import torch

from spleen.errors import InputError, check_choice

Accelerator = Literal["cpu", "gpu", "mps"]


LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS = "auto", "32", "bf16", "16"


def choose_accelerator(requested: str, devices: int | list[int]) -> Accelerator:
    """Resolve "auto"; raise InputError for hardware that is not available."""
    n_gpus = torch.cuda.device_count()
    if requested == "auto":
        if n_gpus:
            return "gpu"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if requested == "gpu":
        if not n_gpus:
            raise InputError(
                "trainer.accelerator=gpu, but this machine has no CUDA GPU that PyTorch can use; use trainer=auto or "
                "trainer=cpu. With a GPU, check nvidia-smi and that PyTorch is built for CUDA"
            )
        missing = [index for index in devices if index >= n_gpus] if isinstance(devices, list) else []
        if missing or (isinstance(devices, int) and devices > n_gpus):
            raise InputError(
                f"trainer.devices={devices}, but this machine has {n_gpus} GPU(s), numbered from 0 to {n_gpus - 1}"
            )
        return "gpu"
    if requested == "mps" and not torch.backends.mps.is_available():
        raise InputError("trainer.accelerator=mps, but this is not a Mac with Metal; use trainer.accelerator=cpu")
    return "mps" if requested == "mps" else "cpu"


def choose_precision(requested: str, accelerator: Accelerator) -> LightningPrecision:
    """Resolve "auto": bf16 autocast if the hardware has native bf16 arithmetic, otherwise 32-bit.

    Raises InputError for another word than those of `PRECISIONS`, and for float16 without a CUDA GPU, where there is no
    loss scaling.
    """
    check_choice("precision", requested, PRECISIONS)
    if requested == "16":
        if accelerator != "gpu":
            raise InputError(f"precision=16 needs a CUDA GPU, but this run uses {accelerator}; use precision=auto")
        return "16-mixed"
    if requested == "bf16" or (requested == "auto" and _has_native_bf16(accelerator)):
        return "bf16-mixed"
    return "32-true"


def _has_native_bf16(accelerator: Accelerator) -> bool:
    return (accelerator == "gpu" and _gpu_has_bf16()) or (accelerator == "cpu" and _cpu_has_bf16())


def _gpu_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bf16() -> bool:
    """Whether the CPU flags in /proc/cpuinfo include AMX-BF16 or AVX512-BF16."""
    return bool({"amx_bf16", "avx512_bf16"} & set(_cpuinfo("flags").split()))


def _cpuinfo(field: str) -> str:
    """A field of the first processor in Linux's /proc/cpuinfo; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


@dataclass(frozen=True)
class Hardware:
    """The machine, as recorded in summary.json."""

    processor: str
    cores: int
    threads: int
    memory_gib: float
    gpu: str | None
    system: str


def limit_threads(cores: int) -> None:
    """Let PyTorch compute with at most this many threads. A lower OMP_NUM_THREADS is respected.

    It counts the cores on which the process may run, but knows no CPU quota, such as that of `docker run --cpus=4`.
    """
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores)))


def describe_hardware() -> Hardware:
    """Describe the processor, memory, GPU and operating system of this machine."""
    return Hardware(
        processor=_cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=psutil.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=platform.platform(),
    )


DeviceName = Literal["auto", "cpu", "gpu", "mps"]


@dataclass(frozen=True)
class Device:
    """Where and with which floats a network is run."""

    device: torch.device
    autocast: torch.dtype | None
    """bfloat16 or float16; None is 32 bits throughout."""


def choose_hardware(device: DeviceName, precision: str) -> Device:
    """Resolve "auto"; raises InputError for unknown words, and for hardware that is not there."""
    check_choice("device", device, get_args(DeviceName))
    try:
        accelerator = choose_accelerator(device, 1)
    except InputError as error:  # its words are those of a training's settings
        raise InputError(f"--device {device}: this machine has no such device; use --device cpu") from error
    floats = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": None}
    return Device(
        torch.device("cuda" if accelerator == "gpu" else accelerator), floats[choose_precision(precision, accelerator)]
    )
