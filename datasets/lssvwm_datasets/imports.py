"""Imports a part of a package that does not import as a whole."""

import importlib
import importlib.util
import sys
import threading
import types

_one_at_a_time = threading.RLock()


def import_without_parent(name: str) -> types.ModuleType:
    """Import `package.part` without running the package's own `__init__`, and leave `sys.modules` as it was.

    Packages need it whose `__init__` wants what nobody needs here. A package that is imported already is taken as it
    is. Raises: ImportError as the part raises it, or when there is no such package.
    """
    package = name.partition(".")[0]
    with _one_at_a_time:
        if package in sys.modules:
            return importlib.import_module(name)
        spec = importlib.util.find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        parent = types.ModuleType(package)
        parent.__path__ = list(spec.submodule_search_locations)
        sys.modules[package] = parent
        try:
            return importlib.import_module(name)
        finally:
            for imported in [own for own in sys.modules if own.partition(".")[0] == package]:
                del sys.modules[imported]
