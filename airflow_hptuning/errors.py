"""The errors of airflow_hptuning, and the problems that a polyaxonfile can have.

The tree (each also is the nearest builtin, so that plain code can catch it)::

    HptuningError
    ├── PolyaxonfileError(ValueError)     the file is wrong; carries every Problem found in it
    ├── SearchSpaceError(ValueError)      one parameter of the space is wrong; carries a hint
    ├── TemplateError(ValueError)         a command or param cannot be rendered
    ├── UnsupportedError(NotImplementedError)  valid, but not built yet
    ├── BuildError(RuntimeError)          the build steps of a sweep failed
    └── TrialError(RuntimeError)          one trial failed

Only the standard library: everything imports this module.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class Severity(StrEnum):
    """How bad a problem is: an error refuses the file, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, or surprising, in a polyaxonfile.

    Attributes:
        file: Path of the file as the user named it, or ``<text>``.
        line: Line of the value, from 1; 0 when the problem has no place (such as an unreadable file).
        column: Column of the value, from 1; 0 as for the line.
        path: Place in the document, such as ``hptuning.matrix.lr``.
        severity: Whether the file is refused for it.
        message: What is wrong, without a full stop.
        hint: What to do about it; may be empty.
    """

    file: str
    line: int
    column: int
    path: str
    severity: Severity
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        path = f"{self.path}: " if self.path else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{path}{self.message}.{hint}"

    def to_json(self) -> dict[str, Any]:
        """Return the problem as the command line prints it with ``--output json``."""
        return asdict(self) | {"severity": self.severity.value}


class HptuningError(Exception):
    """The root of all errors raised by this package."""


class PolyaxonfileError(HptuningError, ValueError):
    """A polyaxonfile that cannot be used, with everything that is wrong with it.

    Attributes:
        problems: All problems, in the order of the file; at least one is an error.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda p: (p.line, p.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SearchSpaceError(HptuningError, ValueError):
    """A parameter that has no valid domain.

    Attributes:
        message: What is wrong, without a full stop.
        hint: What to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message}. {hint}" if hint else message)


class TemplateError(HptuningError, ValueError):
    """A template of the file that cannot be rendered."""


class UnsupportedError(HptuningError, NotImplementedError):
    """A valid request that this version does not serve."""


class BuildError(HptuningError, RuntimeError):
    """The build steps of a sweep failed; no trial can run."""


class TrialError(HptuningError, RuntimeError):
    """A trial failed; its record says why."""
