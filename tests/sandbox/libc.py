"""FreeBSD's system calls for the fake host's python, whose C library is Linux's.

A file of the host's site-packages, which each python there imports when it starts. So it does
no more than wait until somebody imports ctypes, and then has `sandbox.syscalls` add to that.
"""

import sys

LIBRARY = "/compat/sandbox/lib"


class Waiting:
    """Finds ctypes as it is always found, and adds to it once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        """Be asked for every module, and care for one."""
        if name != "ctypes":
            return None
        sys.meta_path.remove(self)
        found = (each.find_spec(name, path, target) for each in sys.meta_path)
        spec = next(filter(None, found), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def load(module):
                execute(module)
                extend()

            spec.loader.exec_module = load
        return spec


class Lacking:
    """A python that was built without ctypes."""

    def find_spec(self, name, path=None, target=None):
        """Refuse one module."""
        if name in ("ctypes", "_ctypes"):
            raise ModuleNotFoundError("No module named '_ctypes'", name="_ctypes")
        return None


def extend():
    """Add the calls; in a view there is no sandbox, and none of them."""
    sys.path.insert(0, LIBRARY)
    try:
        from sandbox import syscalls
    except ImportError:
        return
    finally:
        sys.path.remove(LIBRARY)
    syscalls.install()


def present():
    """Wait for ctypes."""
    sys.meta_path.insert(0, Waiting())


def absent():
    """Have none."""
    sys.meta_path.insert(0, Lacking())
