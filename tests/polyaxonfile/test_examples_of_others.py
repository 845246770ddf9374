"""The 84 polyaxonfiles of other people: what each gives, or why it is refused.

The files are read where they lie (``polyaxon/examples`` in the folder shared with this repository) and are not copied.
Names ending in ``-fragment`` are pieces of documentation, completed with what they leave out.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_hptuning import plan
from airflow_hptuning.errors import PolyaxonfileError, Severity
from airflow_hptuning.polyaxonfile.parser import parse_text

EXAMPLES = Path(__file__).resolve().parents[3] / "shared" / "polyaxon" / "examples"

EXPECTED: dict[str, tuple[str, int | None, int] | str] = {
    # search, size of the space (None: continuous), trials; or the problem. Polyaxon refused pvalues with bo, `higher`
    # and settings-era files; we read them (see the table of deviations).
    "docs-0.6.1-bayesian-optimization-1-fragment.yml": ("bo", None, 45),
    "docs-0.6.1-bayesian-optimization-2-fragment.yml": ("bo", None, 45),
    "docs-0.6.1-experiment-groups-hyperparameters-optimization-1.yml": ("grid", 5, 5),
    "docs-0.6.1-experiment-groups-hyperparameters-optimization-2-fragment.yml": "`matrix` is missing",
    "docs-0.6.1-experiment-groups-hyperparameters-optimization-3-fragment.yml": "`matrix` is missing",
    "docs-0.6.1-experiment-groups-hyperparameters-optimization-4-fragment.yml": "`matrix` is missing",
    "docs-0.6.1-grid-search-1.yml": ("grid", 10, 10),
    "docs-0.6.1-grid-search-2.yml": ("grid", 10, 4),
    "docs-0.6.1-grid-search-3.yml": ("grid", 10, 8),
    "docs-0.6.1-grid-search-4.yml": ("grid", 10, 4),
    "docs-0.6.1-hyperband-1-fragment.yml": ("hyperband", None, 206),
    "docs-0.6.1-hyperband-2-fragment.yml": ("hyperband", None, 206),
    "docs-0.6.1-random-search-1.yml": ("random", None, 40),
    "docs-0.6.1-random-search-2.yml": ("random", None, 40),
    "docs-0.6.1-random-search-3.yml": ("random", None, 40),
    "ex-keras-bidirectional_lstm.yml": ("random", None, 50),
    "ex-keras-cnn_lstm.yml": ("random", 90, 50),
    "ex-keras-mnist.yml": ("random", None, 50),
    "ex-mxnet-mnist.yml": ("random", 5760, 50),
    "ex-pytorch-mnist.yml": ("random", None, 10),
    "ex-sklearn-newsgroup-2018-12.yml": ("random", 72, 50),
    "ex-sklearn-newsgroup.yml": ("random", 72, 50),
    "ex-sklearn-random_forest.yml": "`range` takes 3 values (start, stop, step), but 4 were given",
    "ex-sklearn-sgd_classifier.yml": ("random", None, 50),
    "ex-tensorflow-cifar10.yml": ("random", 45, 10),
    "ex-tensorflow-mnist.yml": ("random", None, 50),
    "ex-xgboost-iris.yml": ("random", 90, 50),
    "fixture-0.4-matrix_file.yml": "`model` describes a model in the file itself, which Polyaxon dropped in 2018",
    "fixture-legacy-percent_experiments.yml": "`model` describes a model in the file itself, which Polyaxon dropped in 2018",
    "fixture-legacy-settings-sampling.yml": "the `if` and `for` operators are not supported",
    "fixture-plain-matrix_file.yml": ("grid", 10, 10),
    "fixture-plain-matrix_file_early_stopping.yml": ("random", 10, 5),
    "fixture-plain-matrix_file_ignored_n_experiments.yml": ("random", 10, 10),
    "fixture-plain-matrix_file_with_int_float_types.yml": ("grid", 4, 4),
    "fixture-plain-one_matrix_file.yml": ("grid", 2, 2),
    "fixture-plain-run_cmd_matrix_file.yml": ("grid", 3, 3),
    "fixture-plain-run_cmd_matrix_sampling_file.yml": ("random", None, 5),
    "fixture-plain-wrong_grid_matrix_file.yml": "`model` describes a model in the file itself, which Polyaxon dropped in 2018",
    "fixture-typing-matrix_file_with_int_float_types.yml": ("grid", 4, 4),
    "fixture-typing-one_matrix_file.yml": "`values` must be a list",
    "fixture-typing-run_cmd_matrix_sampling_file.yml": ("random", None, 5),
    "fixture-typing-test_parallel_distributed.yaml": ("bo", None, 17),
    "platform-content.yml": "`model` describes a model in the file itself, which Polyaxon dropped in 2018",
    "platform-content_2_xps.yml": ("grid", 2, 2),
    "platform-content_bo.yml": ("bo", 3, 3),
    "platform-content_early_stopping.yml": ("random", 3, 2),
    "platform-content_hyperband.yml": ("hyperband", 3, 6),
    "platform-content_hyperband_trigger_reschedule.yml": ("hyperband", 240, 22),
    "qs-0.2-hyperparams_bo.yml": ("bo", None, 55),
    "qs-0.2-hyperparams_hyperband.yml": ("hyperband", None, 611),
    "qs-0.4.4-hyperparams.yml": ("random", 20, 10),
    "qs-0.4.4-hyperparams_bo.yml": ("bo", None, 55),
    "qs-0.4.4-hyperparams_early_stopping.yml": ("random", 20, 10),
    "qs-0.4.4-hyperparams_grid.yml": ("grid", 20, 20),
    "qs-0.4.4-hyperparams_hyperband.yml": ("hyperband", None, 611),
    "qs-0.5.5-hyperparams.yml": ("random", 20, 10),
    "qs-0.5.5-hyperparams_bo.yml": ("bo", None, 55),
    "qs-0.5.5-hyperparams_early_stopping.yml": ("random", 20, 10),
    "qs-0.5.5-hyperparams_grid.yml": ("grid", 20, 20),
    "qs-0.5.5-hyperparams_hyperband.yml": ("hyperband", None, 611),
    "qs-legacy-2018-01-hyperparams.yml": ("random", 20, 20),
    "qs-legacy-2018-03-early_stopping.yml": ("random", 20, 10),
    "qs-settings-hyperparams.yml": ("random", 20, 10),
    "qs-settings-hyperparams_bo.yml": ("bo", None, 15),
    "qs-settings-hyperparams_early_stopping.yml": ("random", 20, 10),
    "qs-settings-hyperparams_hyperband.yml": ("hyperband", None, 22),
    "seed-doc-1.yml": ("grid", 10, 10),
    "seed-doc-2.yml": ("grid", 10, 4),
    "seed-doc-3.yml": ("random", None, 40),
    "seed-doc-4-fragment.yml": ("hyperband", None, 206),
    "seed-doc-5-fragment.yml": ("hyperband", None, 206),
    "seed-doc-6-fragment.yml": ("bo", None, 45),
    "seed-doc-7-fragment.yml": ("bo", None, 45),
    "user-andreas-gompos-bbc.yml": ("random", 672, 1),
    "user-antonfriberg-hptuning.yml": ("random", None, 5),
    "user-antonfriberg-matrix.yml": ("grid", 11, 11),
    "user-aqqu-invalid-kind-experiment.yml": "a key must be text, not a mapping",
    "user-duanyutong-group.yml": ("grid", 4, 4),
    "user-oodapow-hptune_bo.yml": ("bo", None, 30),
    "user-oodapow-hptune_hb.yml": ("hyperband", 12, 175),
    "user-oodapow-hptune_hb_resume.yml": ("hyperband", 12, 175),
    "user-oodapow-hptune_hb_uniform.yml": ("hyperband", None, 1183),
    "user-yestinl-group.yml": ("grid", 12, 12),
    "user-zhufengdaaa-group.yml": ("grid", 6, 6),
}


def completed(name: str, text: str) -> str:
    """A fragment with the sections that it leaves out."""
    if "-fragment" not in name:
        return text
    text = re.sub(r"^(\.\.\.|---)$", "", text, flags=re.MULTILINE)
    for key, line in {"version": "version: 1", "kind": "kind: group", "run": "run: {cmd: echo}"}.items():
        if not re.search(rf"^{key}:", text, re.MULTILINE):
            text = f"{line}\n{text}"
    return text


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example(name: str) -> None:
    """The space and the number of trials are right, or the problem is the documented one."""
    if not EXAMPLES.is_dir():
        pytest.skip(f"the examples are not here: {EXAMPLES}")
    text = completed(name, (EXAMPLES / name).read_text(encoding="utf-8"))
    expected = EXPECTED[name]
    if isinstance(expected, str):
        with pytest.raises(PolyaxonfileError) as caught:
            parse_text(text, file=name)
        assert expected in [p.message for p in caught.value.problems if p.severity is Severity.ERROR]
        return
    spec = parse_text(text, file=name)
    shape = plan(spec)
    assert (shape.search, spec.space.size, shape.trials) == expected


def test_no_example_is_left_out() -> None:
    """The table has every file."""
    if not EXAMPLES.is_dir():
        pytest.skip(f"the examples are not here: {EXAMPLES}")
    assert {path.name for path in EXAMPLES.glob("*.y*ml")} == set(EXPECTED)
