"""What a process pays for Python's search for cycles while it imports what a study needs, and at its end.

    python bench/start_and_end.py

Whole processes, with and without ``tune_process``, alternating. Figures and hardware: bench/README.md.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 7
PLAIN = "import unfreeze.study.run"
TUNED = f"from unfreeze.cli.tuning import tune_process; tune_process(); {PLAIN}"


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    rounds = [(seconds(PLAIN), seconds(TUNED)) for _ in range(ROUNDS)]
    plain, tuned = (statistics.median(side) for side in zip(*rounds, strict=True))
    shares = sorted(tuned / plain for plain, tuned in rounds)
    print(f"plain {plain:.2f} s, tuned {tuned:.2f} s; share {statistics.median(shares):.2f} [{shares[0]:.2f}", end="")
    print(f"..{shares[-1]:.2f}], {ROUNDS} rounds")


if __name__ == "__main__":
    main()
