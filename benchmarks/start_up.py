"""Time of start-ups as ratios to ``import torch``: python benchmarks/start_up.py [REPEATS]. Prints a Markdown table."""

import statistics
import subprocess
import sys
import time

CASES = {
    "import torch": ["-c", "import torch"],
    "import lightning_chex.attribution": ["-c", "import lightning_chex.attribution"],
    "import lightning_chex.metrics": ["-c", "import lightning_chex.metrics"],
    "import lightning_chex.data": ["-c", "import lightning_chex.data"],
    "import pytorch_lightning": ["-c", "import pytorch_lightning"],
    "import lightning_chex.cli.main": ["-c", "import lightning_chex.cli.main"],
    "--help": ["-m", "lightning_chex", "--help"],
    "fit --help": ["-m", "lightning_chex", "fit", "--help"],
    "misspelt command": ["-m", "lightning_chex", "fitt"],
    "misspelt option": ["-m", "lightning_chex", "fit", "--modl=X"],
    "misspelt class": ["-m", "lightning_chex", "fit", "--model=ClassificationTsk"],
}


def seconds(arguments: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for repeat in range(repeats + 1):
        for name, arguments in CASES.items():
            measured = seconds(arguments)
            if repeat:  # the first round warms the file cache
                taken[name].append(measured)
    print("| start-up | seconds, median | smallest to largest | ratio to `import torch` |\n|---|---|---|---|")
    for name, values in taken.items():
        ratio = statistics.median(a / b for a, b in zip(values, taken["import torch"], strict=True))
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"| {name} | {statistics.median(values):.2f} | {spread} | {ratio:.2f} |")
