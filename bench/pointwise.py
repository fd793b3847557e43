"""OpenVINO's 1 x 1 convolutions by the kernel that unfreeze asks for against the one that it takes itself.

    python bench/pointwise.py [BACKBONE ...]

For each backbone both in turn, seven times, 128 random images of 128 pixels, all stages, random weights, float32,
two threads. Prints the median seconds of each and of their ratios, and by how much the numbers differ. AVX2 alone.
"""

import argparse
import statistics
import time

from unfreeze.cli.tuning import tune_process

tune_process()

import torch  # noqa: E402

from unfreeze.model.backbone import load_backbone  # noqa: E402
from unfreeze.model.network import Frozen  # noqa: E402
from unfreeze.reuse import engines  # noqa: E402

SIDE, IMAGES, ROUNDS, THREADS = 128, 128, 7, 2
BACKBONES = ("resnet50", "regnety_016", "mobilenetv3_large_100", "tf_efficientnet_lite0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="*", default=BACKBONES)
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    device = torch.device("cpu")
    offers = engines.offers(device, "float32", THREADS)
    settings = next((one for one in offers if "pointwise" in one), None)
    if settings is None:
        raise SystemExit("this processor has no AVX2, or more: no kernel is asked for")
    itself = {name: value for name, value in settings.items() if name != "pointwise"}
    images = torch.randn(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for name in asked.backbone:
        stages = Frozen([stage.module for stage in load_backbone(name, "none", SIDE, seed=0).stages])
        ways = [engines.build(one, stages, (3, SIDE, SIDE), device) for one in (itself, settings)]
        rows = [way(images) for way in ways]
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for way, found in zip(ways, times, strict=True):
                started = time.perf_counter()
                way(images)
                found.append(time.perf_counter() - started)
        ratios = [ours / theirs for theirs, ours in zip(*times, strict=True)]
        print(
            f"{name}: {statistics.median(times[0]):.2f} s by itself, {statistics.median(times[1]):.2f} s as asked, "
            f"{statistics.median(ratios):.2f} of it ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"relative difference {float((rows[1] - rows[0]).norm() / rows[0].norm()):.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
