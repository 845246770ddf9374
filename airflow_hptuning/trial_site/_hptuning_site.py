"""Lets a module of this folder give way to a real package of the same name.

This folder is at the end of ``PYTHONPATH``, and that comes before the installed packages. So a module of this
folder is found first although it should be found last; it looks for the real one and loads that in its place.
Where there is none, it is what it is.

Python 3.7 and later.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

SITE = os.path.dirname(os.path.abspath(__file__))


def give_way(name: str) -> bool:
    """Load the real top-level package called ``name`` in place of the module that is being imported.

    Returns:
        Whether there is one.
    """
    spec = _find(name)
    if spec is None or spec.loader is None:
        return False
    module = importlib.util.module_from_spec(spec)
    # The import system takes what it finds here after the import, and removes it when the import fails.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return True


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry or os.getcwd()) != SITE]
    # Not only the path: an editable installation is a finder of its own.
    for finder in sys.meta_path:
        path = elsewhere if finder is importlib.machinery.PathFinder else None
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        # A directory that merely has the name (a namespace package) is not the real thing.
        if spec is not None and spec.origin is not None and spec.loader is not None:
            return spec
    return None
