"""Where to compute."""

from __future__ import annotations

import os
import sys
from ctypes.util import find_library
from typing import TYPE_CHECKING, Any

from leafiqa.errors import InputError

if TYPE_CHECKING:
    import torch


def pick_device(device: Any) -> torch.device:
    """Return the device to use: "auto" or None is CUDA where there is one, else the CPU.

    Raises:
        InputError: the device does not exist here.
    """
    import torch

    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        if place.type == "meta":
            raise RuntimeError("it holds no data")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        message = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used here: {message}. Use 'cpu' or 'auto'.") from error
    return place


def cuda_may_be_there() -> bool:
    """Tell whether this machine may have a device that torch calls CUDA; where torch is not imported, by its driver."""
    if "torch" in sys.modules:
        return bool(sys.modules["torch"].cuda.is_available())
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    # NVIDIA's driver, AMD's, and either one's inside WSL.
    nodes = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    return any(map(os.path.exists, nodes)) or (os.name == "nt" and find_library("nvcuda") is not None)
