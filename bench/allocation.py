"""What memory that is given back and taken anew costs a training step, against memory that is kept (docs/defaults.md).

    python bench/allocation.py

Times training steps of VGG16's head at 128 pixels (8192 to 2048 to 1024 to 6, batch 32, SGD with momentum), five times
in turn in a process of its own without and with unfreeze's settings of the process. Prints the median seconds a step.
"""

import statistics
import subprocess
import sys
import time

STEPS = 20


def seconds_a_step(tuned: bool) -> float:
    if tuned:
        from unfreeze.cli.tuning import tune_process

        tune_process()
    import torch
    from torch import nn

    hidden = [nn.Linear(8192, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU()]
    network = nn.Sequential(*hidden, nn.Linear(1024, 6))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)
    rows, labels, times = torch.randn(32, 8192), torch.arange(32) % 6, []
    for _ in range(STEPS):
        started = time.perf_counter()
        nn.functional.cross_entropy(network(rows), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    times: dict[str, list[float]] = {"as it is": [], "tuned": []}
    for _ in range(5):
        for name, seconds in times.items():
            command = [sys.executable, __file__, name]
            said = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(float(said.stdout))
    bare, tuned = (statistics.median(seconds) for seconds in times.values())
    print(f"as it is {bare * 1e3:.0f} ms a step, tuned {tuned * 1e3:.0f} ms: {bare / tuned:.2f} times")


if __name__ == "__main__":
    print(seconds_a_step(sys.argv[1] == "tuned")) if sys.argv[1:] else main()
