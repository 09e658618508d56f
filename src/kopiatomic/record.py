"""Records: tuples with named fields, as typing.NamedTuple makes them, that cost nothing to define.

Python compiles a function for each class of typing.NamedTuple, and `typing` is a large module.
A run defines some forty such classes before it does anything: that took a quarter of the time
until its first command.
"""

from operator import itemgetter

__all__ = ["TYPE_CHECKING", "Record"]

# As mypy(1) reads it, this is true: so it knows the fields and their types.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:

    class Record(tuple):
        """The base of records. A subclass lists its fields as ``name: type`` or with a default."""

        __slots__ = ()
        _fields = ()

        def __init_subclass__(cls):
            if Record not in cls.__bases__:
                return  # a kind of a record has the fields of that
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
            for number, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(number)))

        def __new__(cls, *values, **named):
            """Return a record of these values; raises TypeError if they do not fit its fields."""
            fields = cls._fields
            if named or len(values) != len(fields):
                rest = fields[len(values) :]
                try:
                    values += tuple(
                        named.pop(name) if name in named else cls._defaults[name] for name in rest
                    )
                except KeyError as error:
                    raise TypeError(f"{cls.__name__} needs a value for {error}") from None
                if named or len(values) > len(fields):
                    raise TypeError(f"{cls.__name__} has only the fields {', '.join(fields)}")
            return tuple.__new__(cls, values)

        def __getnewargs__(self):
            """Return what `copy` makes the same record of."""
            return tuple(self)

        def _replace(self, **changes):
            """Return a record with other values for some fields; raises TypeError likewise."""
            return type(self)(**(self._asdict() | changes))

        def _asdict(self):
            """Return the values by name."""
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            shown = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({shown})"
