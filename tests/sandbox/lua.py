"""As much of Lua as channel programs are written in; zfs-program(8) has Lua 5.2 without a library.

Understood: local, functions, if, while, repeat, both kinds of for, return, break, tables,
operators, several results, ipairs, pairs, next, type, tostring, tonumber, error, assert, pcall,
table.insert, table.concat. Not: metatables, goto, method calls, string patterns.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Scope = dict[str, list[Any]]
    Run = Callable[[Any], Any]

TOKEN = re.compile(r"""
    (?P<blank>\s+|--\[\[.*?\]\]|--[^\n]*)
  | (?P<number>0[xX][0-9a-fA-F]+|\d+)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\[\[.*?\]\])
  | (?P<sign>\.\.\.|\.\.|==|~=|<=|>=|[-+*/%^\#<>=(){}\[\];:,.])
""", re.X | re.S)
KEYWORDS = frozenset("and break do else elseif end false for function if in local nil not or repeat"
                     " return then true until while".split())
ESCAPES = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, '"': 34, "'": 39, "\\": 92,
           "\n": 10}
LEVELS = (("or",), ("and",), ("<", ">", "<=", ">=", "~=", "=="), ("..",), ("+", "-"),
          ("*", "/", "%"))


class LuaError(Exception):
    """What went wrong, and in which line; what error() was given as it is."""

    def __init__(self, value: Any, line: int = 0) -> None:
        super().__init__(value)
        self.value = value
        self.line = line


class Table:
    """A Lua table; keys stay in the order in which they came."""

    def __init__(self, items: dict[Any, Any] | None = None) -> None:
        self.items = items or {}

    def __len__(self) -> int:
        size = len(self.items)
        while size and size not in self.items:
            size -= 1
        return size


class _Break(Exception):
    pass


class _Return(Exception):
    def __init__(self, values: list[Any]) -> None:
        super().__init__()
        self.values = values


class _Env:
    """Variables of a block, and where to look for others."""

    def __init__(self, outer: _Env | None) -> None:
        self.own: dict[str, Any] = {}
        self.outer = outer

    def place(self, name: str) -> _Env:
        at: _Env = self
        while name not in at.own and at.outer is not None:
            at = at.outer
        return at


def run(text: str, globals_: dict[str, Any], arguments: list[Any]) -> list[Any]:
    """Run a program; returns what it returns. LuaError, also for what cannot be read."""
    body = _Parser(text).program()
    env = _Env(None)
    env.own.update(globals_)
    env.own["..."] = arguments
    try:
        body(_Env(env))
    except _Return as result:
        return result.values
    except RecursionError:
        raise LuaError("stack overflow") from None
    return []


def truth(value: Any) -> bool:
    """All but nil and false."""
    return value is not None and value is not False


def tostring(value: Any) -> str:
    """As Lua prints it."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "table" if isinstance(value, Table) else "function" if callable(value) else str(value)


def kind(value: Any) -> str:
    """type()."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "number"
    if isinstance(value, str):
        return "string"
    return "table" if isinstance(value, Table) else "function"


def library() -> dict[str, Any]:
    """The functions that a program finds. Each takes Lua values and returns a list of them."""
    def following(table: Table, key: Any = None) -> list[Any]:
        keys = list(table.items)
        if key is None:
            return [keys[0], table.items[keys[0]]] if keys else [None]
        at = keys.index(key) + 1
        return [keys[at], table.items[keys[at]]] if at < len(keys) else [None]

    def pairs(table: Table) -> list[Any]:
        items = iter(list(table.items.items()))
        return [lambda *_: list(next(items, (None,)))]

    def ipairs(table: Table) -> list[Any]:
        def step(values: Table, at: int) -> list[Any]:
            value = values.items.get(at + 1)
            return [None] if value is None else [at + 1, value]
        return [step, table, 0]

    def check(value: Any = None, message: Any = "assertion failed!", *rest: Any) -> list[Any]:
        if not truth(value):
            raise LuaError(message)
        return [value, message, *rest]

    def error(value: Any = None, _level: int = 1) -> list[Any]:
        raise LuaError(value)

    def pcall(function: Any, *arguments: Any) -> list[Any]:
        try:
            return [True, *function(*arguments)]
        except LuaError as failed:
            return [False, failed.value]

    def insert(table: Table, *words: Any) -> list[Any]:
        if len(words) == 1:
            table.items[len(table) + 1] = words[0]
            return []
        at, value = words
        for number in range(len(table), at - 1, -1):
            table.items[number + 1] = table.items[number]
        table.items[at] = value
        return []

    def concat(table: Table, between: str = "") -> list[Any]:
        return [between.join(tostring(table.items[n + 1]) for n in range(len(table)))]

    def number(value: Any) -> list[Any]:
        if isinstance(value, int) and not isinstance(value, bool):
            return [value]
        return [int(value) if isinstance(value, str) and value.strip().isdigit() else None]

    return {
        "next": following, "pairs": pairs, "ipairs": ipairs, "assert": check, "error": error,
        "pcall": pcall, "type": lambda value: [kind(value)], "tonumber": number,
        "tostring": lambda value: [tostring(value)],
        "table": Table({"insert": insert, "concat": concat}),
    }


class _Parser:
    """Turns a text into functions that take the variables of their block."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0

    @property
    def word(self) -> str:
        return str(self.tokens[self.at][1])

    @property
    def line(self) -> int:
        return int(self.tokens[self.at][2])

    def take(self, *words: str) -> str:
        kind_, word, _ = self.tokens[self.at]
        if kind_ in ("sign", "keyword") and word in words:
            self.at += 1
            return str(word)
        return ""

    def need(self, word: str) -> None:
        if not self.take(word):
            raise LuaError(f"'{word}' expected near '{self.word}'", self.line)

    def name(self) -> str:
        kind_, word, _ = self.tokens[self.at]
        if kind_ != "name":
            raise LuaError(f"<name> expected near '{word}'", self.line)
        self.at += 1
        return str(word)

    def names(self) -> list[str]:
        found = [self.name()]
        while self.take(","):
            found.append(self.name())
        return found

    # -- statements --------------------------------------------------------------------------

    def program(self) -> Run:
        body = self.block()
        if self.tokens[self.at][0] != "end":
            raise LuaError(f"'<eof>' expected near '{self.word}'", self.line)
        return body

    def block(self) -> Run:
        steps: list[Run] = []
        while self.tokens[self.at][0] != "end" and self.word not in (
                "end", "else", "elseif", "until"):
            if self.take("return"):
                last = self.word in ("end", "else", "elseif", "until", ";") or (
                    self.tokens[self.at][0] == "end")
                values = _none if last else self.several()
                self.take(";")
                steps.append(_returning(values))
                break
            if not self.take(";"):
                steps.append(self.statement())

        def execute(env: _Env) -> None:
            for step in steps:
                step(env)
        return execute

    def statement(self) -> Run:
        if self.take("do"):
            return _nested(self.closed())
        if self.take("local"):
            return self.local()
        if self.take("if"):
            return self.condition()
        if self.take("while"):
            return self.loop()
        if self.take("repeat"):
            body = self.block()
            self.need("until")
            return _repeated(body, self.expression())
        if self.take("for"):
            return self.iteration()
        if self.take("break"):
            return _breaking
        if self.take("function"):
            name = self.name()
            body = self.function()
            return lambda env: env.place(name).own.__setitem__(name, body(env))
        return self.assignment()

    def closed(self) -> Run:
        body = self.block()
        self.need("end")
        return body

    def local(self) -> Run:
        if self.take("function"):
            name = self.name()
            body = self.function()

            def define(env: _Env) -> None:
                env.own[name] = None
                env.own[name] = body(env)
            return define
        names = self.names()
        values = self.several() if self.take("=") else _none

        def declare(env: _Env) -> None:
            found = values(env)
            for number, one in enumerate(names):
                env.own[one] = found[number] if number < len(found) else None
        return declare

    def condition(self) -> Run:
        cases = []
        otherwise: Run = _nothing
        while True:
            test = self.expression()
            self.need("then")
            cases.append((test, self.block()))
            if self.take("elseif"):
                continue
            if self.take("else"):
                otherwise = self.block()
            self.need("end")
            break

        def choose(env: _Env) -> None:
            for test, body in cases:
                if truth(test(env)):
                    return body(_Env(env))
            return otherwise(_Env(env))
        return choose

    def loop(self) -> Run:
        test = self.expression()
        self.need("do")
        body = self.closed()

        def go(env: _Env) -> None:
            try:
                while truth(test(env)):
                    body(_Env(env))
            except _Break:
                pass
        return go

    def iteration(self) -> Run:
        names = self.names()
        if self.take("="):
            bounds = self.several()
            self.need("do")
            body = self.closed()
            return _counted(names[0], bounds, body)
        self.need("in")
        line = self.line
        source = self.several()
        self.need("do")
        body = self.closed()
        return _each(names, source, body, line)

    def assignment(self) -> Run:
        line = self.line
        first = self.suffixed()
        if first.call:
            return lambda env: first.values(env)
        targets = [first]
        while self.take(","):
            targets.append(self.suffixed())
        if not self.take("="):
            raise LuaError(f"syntax error near '{self.word}'", line)
        values = self.several()

        def assign(env: _Env) -> None:
            found = values(env)
            for number, target in enumerate(targets):
                target.store(env, found[number] if number < len(found) else None)
        return assign

    # -- expressions -------------------------------------------------------------------------

    def several(self) -> Run:
        """A list of expressions; the last may give any number of values."""
        found = [self.operation(0)]
        while self.take(","):
            found.append(self.operation(0))

        def evaluate(env: _Env) -> list[Any]:
            values = [one.value(env) for one in found[:-1]]
            return values + found[-1].values(env)
        return evaluate

    def expression(self) -> Run:
        return self.operation(0).value

    def operation(self, level: int) -> _Expression:
        if level == len(LEVELS):
            return self.unary()
        left = self.operation(level + 1)
        while True:
            line = self.line
            sign = self.take(*LEVELS[level])
            if not sign:
                return left
            right = self.operation(level if sign == ".." else level + 1)
            left = _Expression(_binary(sign, left.value, right.value, line))

    def unary(self) -> _Expression:
        line = self.line
        sign = self.take("not", "-", "#")
        if not sign:
            return self.suffixed()
        operand = self.unary().value
        if sign == "not":
            return _Expression(lambda env: not truth(operand(env)))

        def apply(env: _Env) -> Any:
            value = operand(env)
            if sign == "#" and isinstance(value, (Table, str)):
                return len(value)
            if sign == "-" and isinstance(value, int):
                return -value
            word = "get length of" if sign == "#" else "perform arithmetic on"
            raise LuaError(f"attempt to {word} a {kind(value)} value", line)
        return _Expression(apply)

    def suffixed(self) -> _Expression:
        left = self.primary()
        while True:
            line = self.line
            if self.take("."):
                key = self.name()
                left = _indexed(left, lambda _env, key=key: key, line)
            elif self.take("["):
                left = _indexed(left, self.expression(), line)
                self.need("]")
            elif self.take("("):
                given = _none if self.word == ")" else self.several()
                self.need(")")
                left = _called(left, given, line)
            elif self.word == "{" or self.tokens[self.at][0] == "string":
                argument = self.primary().value
                left = _called(left, lambda env, argument=argument: [argument(env)], line)
            else:
                return left

    def primary(self) -> _Expression:
        kind_, word, line = self.tokens[self.at]
        if kind_ == "name":
            self.at += 1
            return _variable(str(word))
        if kind_ in ("string", "number"):
            self.at += 1
            return _Expression(lambda _env: word)
        if self.take("nil", "true", "false"):
            value = {"nil": None, "true": True, "false": False}[str(word)]
            return _Expression(lambda _env: value)
        if self.take("..."):
            return _Expression(lambda env: _first(_varargs(env)), many=_varargs)
        if self.take("function"):
            return _Expression(self.function())
        if self.take("("):
            inner = self.expression()
            self.need(")")
            return _Expression(inner)
        if self.take("{"):
            return self.table()
        raise LuaError(f"unexpected symbol near '{word}'", int(line))

    def table(self) -> _Expression:
        items: list[tuple[Run | None, _Expression]] = []
        while not self.take("}"):
            if self.take("["):
                key = self.expression()
                self.need("]")
                self.need("=")
                items.append((key, self.operation(0)))
            elif self.tokens[self.at][0] == "name" and self.tokens[self.at + 1][1] == "=" and (
                    self.tokens[self.at + 1][0] == "sign"):
                word = self.name()
                self.need("=")
                items.append((lambda _env, word=word: word, self.operation(0)))
            else:
                items.append((None, self.operation(0)))
            if not self.take(",", ";"):
                self.need("}")
                break
        return _Expression(lambda env: _built(env, items))

    def function(self) -> Run:
        self.need("(")
        names: list[str] = []
        while not self.take(")"):
            names.append("..." if self.take("...") else self.name())
            if not self.take(","):
                self.need(")")
                break
        body = self.closed()

        def make(env: _Env) -> Any:
            def call(*arguments: Any) -> list[Any]:
                inner = _Env(env)
                for number, name in enumerate(names):
                    if name == "...":
                        inner.own["..."] = list(arguments[number:])
                    else:
                        inner.own[name] = arguments[number] if number < len(arguments) else None
                try:
                    body(inner)
                except _Return as result:
                    return result.values
                return []
            return call
        return make


class _Expression:
    """Gives one value, or as the last of several any number; some can be assigned to."""

    def __init__(self, value: Run, many: Run | None = None,
                 store: Callable[[Any, Any], None] | None = None, call: bool = False) -> None:
        self.value = value
        self.values = many or (lambda env: [value(env)])
        self.store = store or _no_target
        self.call = call


def _no_target(_env: Any, _value: Any) -> None:
    raise LuaError("cannot assign to this")


def _first(values: list[Any]) -> Any:
    return values[0] if values else None


def _none(_env: Any) -> list[Any]:
    return []


def _nothing(_env: Any) -> None:
    return None


def _varargs(env: _Env) -> list[Any]:
    return list(env.place("...").own.get("...", []))


def _variable(name: str) -> _Expression:
    return _Expression(lambda env: env.place(name).own.get(name),
                       store=lambda env, value: env.place(name).own.__setitem__(name, value))


def _indexed(left: _Expression, key: Run, line: int) -> _Expression:
    def table(env: _Env) -> Table:
        value = left.value(env)
        if not isinstance(value, Table):
            raise LuaError(f"attempt to index a {kind(value)} value", line)
        return value

    def store(env: _Env, value: Any) -> None:
        items, name = table(env).items, key(env)
        if value is None:
            items.pop(name, None)
        else:
            items[name] = value
    return _Expression(lambda env: table(env).items.get(key(env)), store=store)


def _called(left: _Expression, given: Run, line: int) -> _Expression:
    def call(env: _Env) -> list[Any]:
        function = left.value(env)
        if not callable(function):
            raise LuaError(f"attempt to call a {kind(function)} value", line)
        try:
            return list(function(*given(env)))
        except LuaError as error:
            error.line = error.line or line
            raise
    return _Expression(lambda env: _first(call(env)), many=call, call=True)


def _built(env: _Env, items: list[tuple[Run | None, _Expression]]) -> Table:
    made = Table()
    count = 0
    for number, (key, expression) in enumerate(items):
        if key is not None:
            made.items[key(env)] = expression.value(env)
            continue
        last = number == len(items) - 1
        for value in expression.values(env) if last else [expression.value(env)]:
            count += 1
            made.items[count] = value
    made.items = {k: v for k, v in made.items.items() if v is not None}
    return made


def _binary(sign: str, left: Run, right: Run, line: int) -> Run:
    if sign == "and":
        return lambda env: right(env) if truth(value := left(env)) else value
    if sign == "or":
        return lambda env: value if truth(value := left(env)) else right(env)
    if sign in ("==", "~="):
        return lambda env: _same(left(env), right(env)) == (sign == "==")
    functions: dict[str, Callable[[Any, Any], Any]] = {
        "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b, "+": lambda a, b: a + b, "-": lambda a, b: a - b,
        "*": lambda a, b: a * b, "/": lambda a, b: a // b, "%": lambda a, b: a % b,
        "..": lambda a, b: tostring(a) + tostring(b),
    }
    allowed = {"..": ("string", "number")}.get(sign, ("number",))
    word = {"..": "concatenate"}.get(sign, "compare" if sign in "<=>=" else
                                     "perform arithmetic on")

    def apply(env: _Env) -> Any:
        one, other = left(env), right(env)
        if word == "compare" and kind(one) == kind(other) == "string":
            return functions[sign](one, other)
        for value in (one, other):
            if kind(value) not in allowed:
                raise LuaError(f"attempt to {word} a {kind(value)} value", line)
        return functions[sign](one, other)
    return apply


def _same(one: Any, other: Any) -> bool:
    return kind(one) == kind(other) and (one is other or (
        not isinstance(one, Table) and bool(one == other)))


def _returning(values: Run) -> Run:
    def leave(env: _Env) -> None:
        raise _Return(values(env))
    return leave


def _breaking(_env: _Env) -> None:
    raise _Break


def _nested(body: Run) -> Run:
    return lambda env: body(_Env(env))


def _repeated(body: Run, test: Run) -> Run:
    def go(env: _Env) -> None:
        try:
            while True:
                inner = _Env(env)
                body(inner)
                if truth(test(inner)):
                    return
        except _Break:
            pass
    return go


def _counted(name: str, bounds: Run, body: Run) -> Run:
    def go(env: _Env) -> None:
        first, last, *rest = bounds(env)
        step = rest[0] if rest else 1
        try:
            for number in range(first, last + (1 if step > 0 else -1), step):
                inner = _Env(env)
                inner.own[name] = number
                body(inner)
        except _Break:
            pass
    return go


def _each(names: list[str], source: Run, body: Run, line: int) -> Run:
    def go(env: _Env) -> None:
        function, *rest = source(env)
        state, control = (*rest, None, None)[:2]
        if not callable(function):
            raise LuaError(f"attempt to call a {kind(function)} value", line)
        try:
            while True:
                values = function(state, control)
                control = _first(values)
                if control is None:
                    return
                inner = _Env(env)
                for number, name in enumerate(names):
                    inner.own[name] = values[number] if number < len(values) else None
                body(inner)
        except _Break:
            pass
    return go


# -- words -----------------------------------------------------------------------------------


def _tokens(text: str) -> Iterator[tuple[str, Any, int]]:
    position, line = 0, 1
    while position < len(text):
        found = TOKEN.match(text, position)
        if not found:
            raise LuaError(f"unexpected symbol near '{text[position]}'", line)
        kind_, word = str(found.lastgroup), found[0]
        if kind_ == "name" and word in KEYWORDS:
            yield "keyword", word, line
        elif kind_ == "number":
            yield "number", int(word, 16 if word[:2] in ("0x", "0X") else 10), line
        elif kind_ == "string":
            yield "string", _string(word), line
        elif kind_ != "blank":
            yield kind_, word, line
        position = found.end()
        line += word.count("\n")
    yield "end", "<eof>", line


def _string(word: str) -> str:
    if word.startswith("[["):
        return word[2:-2].removeprefix("\n")
    data = bytearray()
    position, last = 1, len(word) - 1
    while position < last:
        letter = word[position]
        position += 1
        if letter != "\\":
            data += letter.encode("utf-8", "surrogateescape")
            continue
        digits = re.compile(r"\d{1,3}").match(word, position)
        if digits:
            data.append(int(digits[0]))
            position = digits.end()
        elif word[position] == "x":
            data.append(int(word[position + 1:position + 3], 16))
            position += 3
        else:
            data.append(ESCAPES[word[position]])
            position += 1
    return data.decode("utf-8", "surrogateescape")
