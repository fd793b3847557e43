"""A converted network in ncnn: load its files, run one row.

As a program, ``python -P ncnn_network.py FOLDER C H W``, it runs one row of zeros and prints the shape of its output;
it knows no torch, so that this takes a moment.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

FILES = ("ncnnparam", "ncnnbin")
"""The network and its weights, as pnnx writes them."""


def load(folder: Path) -> Any:
    """Return the network in float32, one thread a row."""
    import ncnn  # only where it is used: on a GPU never

    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    for read, name in zip((network.load_param, network.load_model), FILES, strict=True):
        if read(str(folder / name)) != 0:
            raise RuntimeError(f"cannot load {name}")
    return network


def run(network: Any, row: Any) -> Any:
    """Return one row's output, float32, from that row, float32."""
    import ncnn

    extractor = network.create_extractor()
    # Cloned: ncnn wants each channel to begin at a multiple of 16 bytes.
    extractor.input("in0", ncnn.Mat(np.ascontiguousarray(row)).clone())
    status, found = extractor.extract("out0")
    if status != 0:
        raise RuntimeError(f"a row failed with status {status}")
    return np.array(found)


if __name__ == "__main__":
    print(*run(load(Path(sys.argv[1])), np.zeros([int(size) for size in sys.argv[2:]], np.float32)).shape)
