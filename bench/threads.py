"""What threads that spin cost beside one busy neighbour, against threads that sleep (docs/defaults.md).

    python bench/threads.py

Times training steps of EfficientNet-Lite0 (random weights, batch 32, 64 pixels) in a process of its own for each
OMP_WAIT_POLICY, three times in turn, while another process keeps one core busy. Prints the median seconds a step.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time

STEPS = 2


def busy() -> None:
    while True:
        pass


def seconds_a_step() -> float:
    import timm
    import torch

    network = timm.create_model("tf_efficientnet_lite0", num_classes=6).to(memory_format=torch.channels_last)
    images = torch.zeros(32, 3, 64, 64).to(memory_format=torch.channels_last)
    network(images).sum().backward()
    started = time.perf_counter()
    for _ in range(STEPS):
        network(images).sum().backward()
    return (time.perf_counter() - started) / STEPS


def main() -> None:
    neighbour = multiprocessing.Process(target=busy, daemon=True)
    neighbour.start()
    times: dict[str, list[float]] = {"ACTIVE": [], "PASSIVE": []}
    for _ in range(3):
        for policy, seconds in times.items():
            command = [sys.executable, __file__, "--one"]
            said = subprocess.run(command, env=os.environ | {"OMP_WAIT_POLICY": policy}, capture_output=True, text=True)
            said.check_returncode()
            seconds.append(float(said.stdout))
    neighbour.terminate()
    active, passive = (statistics.median(seconds) for seconds in times.values())
    print(f"threads that spin {active:.2f} s a step, that sleep {passive:.2f} s: {active / passive:.1f} times")


if __name__ == "__main__":
    print(seconds_a_step()) if sys.argv[1:] == ["--one"] else main()
