"""The `hptuning` section: what to search, how, and when to stop (REFERENCE 4, 5.1 and 6.1 of Polyaxon 0.x)."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from airflow_hptuning.polyaxonfile.fields import (
    Amount,
    Count,
    Name,
    Number,
    Optimization,
    Section,
    Whole,
    Word,
    problem,
    show,
)
from airflow_hptuning.trials import Direction, Metric


class MetricSpec(Section):
    """A metric that trials report, and which way is better."""

    name: Name = Field(description="Name, as the trials report it.", examples=["loss"])
    optimization: Optimization = Field(
        default=Direction.MAXIMIZE, description="maximize or minimize.", examples=["minimize"]
    )

    @property
    def metric(self) -> Metric:
        """The same in the words of the other layers."""
        return Metric(self.name, self.optimization)


class GridSearchSpec(Section):
    """Try the combinations of the matrix in the order of the file, the last key changing fastest."""

    n_experiments: Count | None = Field(
        default=None, description="How many combinations to try; all if left out.", examples=[4]
    )


class RandomSearchSpec(Section):
    """Try distinct combinations that are drawn at random."""

    n_experiments: Count = Field(description="How many combinations to draw.", examples=[40])


def _resource_type(value: Any) -> Any:
    if value is None:
        return "float"
    return value.lower() if isinstance(value, str) else value


class ResourceSpec(Section):
    """What Hyperband gives more of to better configurations."""

    name: Name = Field(description="Name, as the command uses it: {{ num_steps }}.", examples=["num_steps"])
    type: Annotated[Literal["int", "float"], BeforeValidator(_resource_type)] = Field(
        default="float", description="int (rounded down, never 0) or float.", examples=["int"]
    )


def _eta(value: Any) -> Decimal:
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    try:
        eta = Decimal(str(value).strip()) if is_number else Decimal("NaN")
    except ArithmeticError:
        eta = Decimal("NaN")
    if not eta.is_finite():
        raise problem(f"must be a number, not {show(value)}")
    if eta <= 1:
        hint = "After each rung one of eta configurations goes on: 3 is usual, 4 or 2 are common."
        raise problem(f"must be greater than 1, not {show(value)}", hint)
    return eta


class HyperbandSpec(Section):
    """Give all configurations a little of the resource, and more only to those that do well."""

    max_iter: Count = Field(
        description="Largest amount of the resource that one trial gets; at least 1.", examples=[81]
    )
    eta: Annotated[Decimal, BeforeValidator(_eta), WithJsonSchema({"type": "number", "exclusiveMinimum": 1})] = Field(
        description="One of eta configurations is promoted; greater than 1.", examples=[3]
    )
    resource: ResourceSpec = Field(description="The resource.", examples=[{"name": "num_steps", "type": "int"}])
    metric: MetricSpec = Field(
        description="The metric to rank by.", examples=[{"name": "loss", "optimization": "minimize"}]
    )
    resume: bool = Field(
        default=False,
        description=(
            "Whether a promoted configuration continues in its own outputs directory, from its checkpoint, up to the"
            " new amount of the resource; otherwise it starts afresh."
        ),
        examples=[True],
    )


class GaussianProcessSpec(Section):
    """The model of Bayesian optimisation."""

    kernel: Annotated[Literal["matern", "rbf"], Word] = Field(
        default="matern", description="Covariance function: matern or rbf.", examples=["rbf"]
    )
    length_scale: Number = Field(default=1.0, gt=0, description="Start value of the length scale.", examples=[1.0])
    nu: Number = Field(default=1.5, gt=0, description="Smoothness of the matern kernel.", examples=[2.5])
    n_restarts_optimizer: Amount = Field(
        default=0, description="Further starts of the fit of the length scales.", examples=[3]
    )


class UtilityFunctionSpec(Section):
    """How Bayesian optimisation weighs what it expects against what it does not know."""

    acquisition_function: Annotated[Literal["ucb", "ei", "poi", "auto"], Word] = Field(
        default="ucb",
        description=(
            "ucb (upper confidence bound, needs kappa), ei (expected improvement, needs eps), poi (probability of"
            " improvement, needs eps), or auto (log expected improvement, needs neither)."
        ),
        examples=["ei"],
    )
    kappa: Number | None = Field(default=None, description="For ucb: larger explores more.", examples=[2.576])
    eps: Number | None = Field(default=None, description="For ei and poi: larger explores more.", examples=[0.01])
    gaussian_process: GaussianProcessSpec | None = Field(
        default=None,
        description="The model; if left out, one that adapts its length scales to each parameter.",
        examples=[{"kernel": "matern", "nu": 1.9}],
    )
    n_warmup: Amount | None = Field(
        default=None, description="Random points the maximisation starts from.", examples=[512]
    )
    n_iter: Amount | None = Field(default=None, description="Starts of the maximiser's local search.", examples=[10])

    @model_validator(mode="after")
    def _check(self) -> UtilityFunctionSpec:
        name = self.acquisition_function
        needed = {"ucb": "kappa", "ei": "eps", "poi": "eps"}.get(name)
        if needed and getattr(self, needed) is None:
            example = {"kappa": "`kappa: 2.576`", "eps": "`eps: 0.01`"}[needed]
            raise problem(
                f"the acquisition function `{name}` requires a parameter `{needed}`",
                f"Add {example}, or use `acquisition_function: auto`.",
            )
        return self


class BayesianSpec(Section):
    """Fit a model to the results and try where it promises most."""

    n_initial_trials: Count = Field(
        description="Trials that explore before the model is used; at least 1.", examples=[10]
    )
    n_iterations: Amount = Field(description="Trials that the model proposes, one by one.", examples=[20])
    metric: MetricSpec = Field(
        description="The metric to optimise.", examples=[{"name": "loss", "optimization": "minimize"}]
    )
    utility_function: UtilityFunctionSpec = Field(
        default=UtilityFunctionSpec(acquisition_function="auto"),
        description="How the next trial is chosen; if left out, automatically.",
        examples=[{"acquisition_function": "ucb", "kappa": 2.576}],
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("utility_function", 0) is None:
            return {key: item for key, item in value.items() if key != "utility_function"}
        return value


PolicyKind = Literal["median", "average", "truncation"]


class PolicySpec(Section):
    """When to end a single trial whose curve is hopeless."""

    kind: Annotated[PolicyKind, Word] = Field(
        description=(
            "median or average: end trials that are worse than that of the others at the same step; truncation: end"
            " the worst percent."
        ),
        examples=["median"],
    )
    evaluation_interval: Count = Field(
        default=1, description="Evaluate at every so many reported values.", examples=[5]
    )
    percent: Number | None = Field(
        default=None, gt=0, lt=100, description="For truncation: the part to end.", examples=[30]
    )
    min_trials: Count = Field(
        default=5, description="How many trials must be comparable before one is ended.", examples=[5]
    )

    @model_validator(mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") is None:
            return value | {"kind": "median" if value.get("percent") is None else "truncation"}
        return value

    @model_validator(mode="after")
    def _check(self) -> PolicySpec:
        if self.kind == "truncation" and self.percent is None:
            raise problem("a truncation policy requires `percent`", "Such as `percent: 30`.")
        return self


class EarlyStoppingSpec(Section):
    """A goal that ends the sweep, or a policy that ends hopeless trials; goals are alternatives."""

    metric: Name = Field(description="Metric that is watched.", examples=["accuracy"])
    value: Number | None = Field(default=None, description="The goal; reaching it ends the sweep.", examples=[0.95])
    optimization: Optimization = Field(
        default=Direction.MAXIMIZE,
        description="Whether the goal is a lower (maximize) or an upper (minimize) limit.",
        examples=["minimize"],
    )
    policy: PolicySpec | None = Field(
        default=None, description="Ends single trials.", examples=[{"kind": "median", "evaluation_interval": 1}]
    )

    @model_validator(mode="after")
    def _check(self) -> EarlyStoppingSpec:
        if self.value is None and self.policy is None:
            raise problem(f"`{self.metric}` has no goal", "Add `value: …`, or a `policy`.")
        return self


MATRIX_SCHEMA: dict[str, Any] = {"type": "object", "minProperties": 1}
"""JSON Schema of the matrix; the schema module fills in the kinds of parameters."""

AlgorithmSpec = GridSearchSpec | RandomSearchSpec | HyperbandSpec | BayesianSpec
ALGORITHMS = {"grid_search": "grid", "random_search": "random", "hyperband": "hyperband", "bo": "bo"}
"""Names of the search algorithms by the key that chooses them."""


class HptuningSpec(Section):
    """The search: its space, its algorithm and its limits."""

    matrix: Annotated[dict[str, Any], WithJsonSchema(MATRIX_SCHEMA)] = Field(
        description="The search space: each key is a parameter with exactly one kind of domain.",
        examples=[{"lr": {"uniform": [0.001, 0.1]}, "dropout": {"values": [0.2, 0.5]}}],
    )
    concurrency: Count = Field(default=1, description="How many trials run at the same time.", examples=[4])
    seed: Whole | None = Field(
        default=None,
        description="Makes the draws repeatable; 0 is a seed as any other. Left out: drawn anew for each run.",
        examples=[7],
    )
    grid_search: GridSearchSpec | None = Field(
        default=None, description="The default algorithm.", examples=[{"n_experiments": 4}]
    )
    random_search: RandomSearchSpec | None = Field(
        default=None, description="Random search.", examples=[{"n_experiments": 40}]
    )
    hyperband: HyperbandSpec | None = Field(
        default=None,
        description="Hyperband.",
        examples=[
            {
                "max_iter": 81,
                "eta": 3,
                "resource": {"name": "num_steps", "type": "int"},
                "metric": {"name": "loss", "optimization": "minimize"},
            }
        ],
    )
    bo: BayesianSpec | None = Field(
        default=None,
        description="Bayesian optimisation.",
        examples=[
            {
                "n_initial_trials": 10,
                "n_iterations": 20,
                "metric": {"name": "loss", "optimization": "minimize"},
            }
        ],
    )
    early_stopping: tuple[EarlyStoppingSpec, ...] | None = Field(
        default=None,
        description="Goals and policies.",
        examples=[[{"metric": "accuracy", "value": 0.95, "optimization": "maximize"}]],
    )

    @property
    def algorithm(self) -> AlgorithmSpec:
        """The chosen algorithm; grid search over everything unless the file chooses."""
        chosen = (getattr(self, key) for key in ALGORITHMS)
        return next((spec for spec in chosen if spec is not None), GridSearchSpec())
