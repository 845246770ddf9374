"""Writes the reference page and the JSON Schema of the polyaxonfile from the schema that validates.

``python -m tools.make_reference`` writes them; with ``--check`` it changes nothing, and fails when they are
outdated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow_hptuning.polyaxonfile.schema import json_schema, reference_markdown

DOCS = Path(__file__).resolve().parents[1] / "docs"


def pages() -> dict[Path, str]:
    """Return what each generated file must hold."""
    return {
        DOCS / "polyaxonfile.md": reference_markdown().rstrip("\n") + "\n",
        DOCS / "polyaxonfile.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def main(arguments: list[str]) -> int:
    """Write or check the files; return the exit status."""
    outdated = {
        path: text for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if arguments == ["--check"]:
        for path in outdated:
            print(f"{path.relative_to(DOCS.parent)} is outdated: run `make reference`", file=sys.stderr)
        return 1 if outdated else 0
    for path, text in outdated.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
