"""What reading polyaxonfiles costs: against dag-factory for an equal DAG, and with many files in the folder.

Each measurement is made in a process of its own (started fresh, modules loaded, then timed), alternating between the
candidates; the table shows medians. dag-factory is a dependency of this benchmark only
(``requirements/benchmarks.txt``); without it the table has our rows alone and says so.

Usage: python -m benchmarks.parsing [--rounds 5] [--files 200]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: 2
  matrix:
    lr: {geomspace: "0.001:0.1:10"}
    dropout: {values: [0.2, 0.5]}
    activation: {values: [relu, tanh]}
run:
  cmd: echo loss={{ lr }} --dropout={{ dropout }} --activation={{ activation }}
airflow:
  runner: local
  metrics: {objective: {name: loss, optimization: minimize}}
"""

FACTORY = """
sweep_NUMBER:
  schedule: null
  start_date: 2024-01-01
  catchup: false
  max_active_tasks: 6
  tags: [hptuning]
  tasks:
    - task_id: suggest
      operator: airflow.providers.standard.operators.bash.BashOperator
      bash_command: echo suggest
    - task_id: trial
      operator: airflow.providers.standard.operators.bash.BashOperator
      partial:
        max_active_tis_per_dagrun: 2
        retries: 2
      expand:
        bash_command: suggest.output
      dependencies: [suggest]
    - task_id: collect
      operator: airflow.providers.standard.operators.bash.BashOperator
      bash_command: echo collect
      trigger_rule: all_done
      dependencies: [trial]
"""

FACTORY_LOADER = """
from dagfactory import load_yaml_dags
load_yaml_dags(globals_dict=globals(), config_filepath={config!r})
"""

TIMER = """
import json, sys, time
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
folder, warm, *files = sys.argv[1:]
def parse(path):
    bag = BundleDagBag(dag_folder=path, bundle_path=Path(folder), bundle_name="bench", safe_mode=False,
                       load_op_links=False)
    if bag.import_errors or not bag.dags:
        raise SystemExit(f"{path}: {bag.import_errors}")
parse(warm)  # modules are loaded now, as they are in the processes that Airflow forks
start = time.perf_counter()
for path in files:
    parse(path)
print(json.dumps((time.perf_counter() - start) / len(files)))
"""


def seconds_per_file(folder: Path, warm: Path, files: list[Path], env: dict[str, str]) -> float:
    """Parse files in a fresh process and return the seconds that one took."""
    command = [sys.executable, "-W", "ignore", "-c", TIMER, str(folder), str(warm), *map(str, files)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr[-3000:] + result.stdout[-1000:])
    return float(json.loads(result.stdout.strip().splitlines()[-1]))


def write_folder(folder: Path, number: int, *, factory: bool) -> list[Path]:
    """Fill a dags folder with that many equal DAGs; return the files that Airflow parses."""
    folder.mkdir()
    files = []
    for index in range(number):
        if factory:
            config = folder / f"sweep_{index}.yaml"
            config.write_text(FACTORY.replace("NUMBER", str(index)))
            path = folder / f"load_{index}.py"
            path.write_text(FACTORY_LOADER.format(config=str(config)))
        else:
            path = folder / f"sweep_{index}.yaml"
            path.write_text(SWEEP)
        files.append(path)
    return files


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=200)
    args = parser.parse_args()
    candidates = ["airflow_hptuning", *(["dag-factory"] if find_spec("dagfactory") else [])]
    with tempfile.TemporaryDirectory() as top:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env |= {
            "AIRFLOW_HOME": top,
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        folders = {
            (name, number): (Path(top) / f"{name}-{number}", number)
            for name in candidates
            for number in (1, args.files)
        }
        written = {
            key: write_folder(folder, number, factory=key[0] == "dag-factory")
            for key, (folder, number) in folders.items()
        }
        seen: dict[tuple[str, int], list[float]] = {key: [] for key in folders}
        start: dict[int, list[float]] = {1: [], args.files: []}
        for _ in range(args.rounds):
            for key, (folder, _number) in folders.items():
                # A single file again and again, as the DAG processor does.
                files = written[key] if len(written[key]) > 1 else written[key] * 50
                seen[key].append(seconds_per_file(folder, files[0], files, env))
            for number, times in start.items():
                # What a task does when it starts: it parses the file of its own DAG, and only that.
                folder, _ = folders["airflow_hptuning", number]
                own = written["airflow_hptuning", number][0]
                times.append(seconds_per_file(folder, own, [own] * 50, env))
    print("| parser | files | ms per file | ratio to dag-factory |\n|---|---|---|---|")
    for (name, number), times in seen.items():
        base = seen.get(("dag-factory", number))
        ratio = f"{median(times) / median(base):.2f}" if base else "dag-factory is not installed"
        print(f"| {name} | {number} | {median(times) * 1000:.1f} | {ratio} |")
    few, many = (median(start[number]) for number in (1, args.files))
    print("\n| start-up parse of a task | ms | ratio |\n|---|---|---|")
    print(f"| 1 file in the folder | {few * 1000:.1f} | 1.00 |")
    print(f"| {args.files} files in the folder | {many * 1000:.1f} | {many / few:.2f} |")


if __name__ == "__main__":
    main()
