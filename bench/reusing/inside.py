"""Run a study in this process after all imports, and say when its first step was done.

    python bench/reusing/inside.py study.yaml --out DIR

Prints one JSON line: seconds of imports, from their end to the end of the first training step, and to the end.
"""

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()

    from unfreeze.cli.tuning import tune_process  # as the command line does

    tune_process()
    begun = time.perf_counter()
    import openvino  # noqa: F401  # a study imports an engine when it first needs it

    from unfreeze.config.load import read_study
    from unfreeze.events import Progress
    from unfreeze.study.registries import registered
    from unfreeze.study.run import run_study

    imported = time.perf_counter()
    steps: list[float] = []

    def emit(event: object) -> None:
        if isinstance(event, Progress) and not steps:
            steps.append(time.perf_counter() - imported)

    run_study(read_study(asked.study, choices=registered()), asked.out, emit)
    seconds = time.perf_counter() - imported
    print(json.dumps({"imports": imported - begun, "first_step": steps[0], "seconds": seconds}))


if __name__ == "__main__":
    main()
