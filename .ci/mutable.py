"""Finds the places of a Rust file that mutants change: `.ci/mutants` compiles them.

It reads tokens and no syntax tree. rustfmt has put spaces around operators with two
operands, which tells them from `&x`, generics and closures. A place whose extent isn't clear
is left out, and what is wrong doesn't compile or fails without a mutant.
"""

import re

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<literal>b?r(?P<hashes>\#*)".*?"(?P=hashes)|[bc]?"(?:\\.|[^"\\])*"
        |b?'(?:\\[^']+|\\'|[^'\\]|[\x80-\xff]{2,4})'|\d\w*(?:\.\d\w*)?)
    |(?P<word>'?(?:r\#)?\w+)
    |(?P<sign>(?<=\s)(?:<<|>>)(?=\s)|<<=|>>=|\.\.=|->|=>|::|==|!=|<=|>=|&&|\|\||[-+*/%&|^]=|\.\.
        |.)""",
    re.S | re.X,
)
KEYWORDS = set(
    """as async break const continue dyn else enum extern fn for if impl in let loop match mod move
    mut pub ref return static struct trait type unsafe use where while yield""".split()
)
PRECEDENCE = {
    **dict.fromkeys("* / %".split(), 11),
    **dict.fromkeys("+ -".split(), 10),
    **dict.fromkeys("<< >>".split(), 9),
    **dict(zip("& ^ |".split(), (8, 7, 6))),
    **dict.fromkeys("== != < > <= >=".split(), 5),
    **dict(zip("&& ||".split(), (4, 3))),
}
PREFIXES = ("!", "-", "*", "&", "&&")
OTHER_OPERATORS = {
    "==": ["!="], "!=": ["=="], "&&": ["||"], "||": ["&&"],
    "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"],
    "+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["/"], "&": ["|"],
    "<<": [">>"], ">>": ["<<"],
    "+=": ["-="], "-=": ["+="], "*=": ["/="], "|=": ["&="], "&=": ["|="],
}  # fmt: skip
# Their arguments are expressions.
PLAIN_MACROS = {"pin", "ready"}
HERE = {"unix", "debug_assertions", 'target_os="linux"', 'target_env="gnu"'}
HERE |= {'target_pointer_width="64"'}


class Unclear(Exception):
    """The extent of an operand wasn't found."""


class Site:
    """A place with mutants, each of which is a name and a text for this place."""

    def __init__(self, start, end, function, mutants, form="choice"):
        self.start, self.end, self.function = start, end, function
        self.mutants, self.form = mutants, form


class Source:
    def __init__(self, path, text):
        self.path, self.text = path, text
        found = [m for m in TOKEN.finditer(self.text) if m.lastgroup != "space"]
        self.at = [m.start() for m in found] + [len(self.text)] * 3
        self.end = [m.end() for m in found] + [len(self.text)] * 3
        self.token = [m.group() for m in found] + [""] * 3
        self.pair, opened = {}, []
        for i, token in enumerate(self.token):
            if token in ("(", "[", "{"):
                opened.append(i)
            elif token in (")", "]", "}"):
                self.pair[i], self.pair[opened[-1]] = opened[-1], i
                opened.pop()
        self.skipped, self.absent, self.constant = set(), set(), set()
        self.skip()
        self.functions = [f for f in map(self.function, range(len(found))) if f]

    def is_literal(self, i):
        return self.token[i][:1].isdigit() or self.token[i][-1:] in "\"'"

    def is_word(self, i):
        return bool(re.match(r"\w", self.token[i])) and self.token[i] not in KEYWORDS

    def touch(self, i):
        return self.end[i] == self.at[i + 1]

    def skip(self):
        """Leaves out attributes, macros' arguments, constants, and what isn't compiled here."""
        for i, token in enumerate(self.token[:-1]):
            following = self.token[i + 1]
            if token == "#" and following in ("[", "!"):
                opener = i + 1 + (following == "!")
                self.skipped |= set(range(i, self.pair[opener] + 1))
                if self.token[opener + 1] == "cfg" and not self.holds(opener + 3)[0]:
                    self.skipped |= set(self.item(self.pair[opener] + 1))
            elif following == "!" and self.is_word(i) and self.touch(i):
                opener = i + 2 + (token == "macro_rules")
                if token not in PLAIN_MACROS and opener in self.pair:
                    self.skipped |= set(range(i, self.pair[opener] + 1))
            elif token in ("const", "static") and (following == "{" or self.token[i + 2] == ":"):
                if self.token[i - 1] not in ("<", ","):
                    item = self.item(i) if following != "{" else range(i, self.pair[i + 1])
                    self.skipped |= set(item)
                    self.constant |= self.called(item)

    def called(self, item):
        return {self.token[k] for k in item if self.token[k + 1] == "("}

    def holds(self, i):
        """Whether the condition of a `cfg` at `i` holds on Linux, and its end."""
        name = self.token[i]
        if self.token[i + 1] == "(":
            values, end = [], self.pair[i + 1]
            i += 2
            while i < end:
                value, i = self.holds(i)
                values.append(value)
                i += self.token[i] == ","
            return {"all": all, "any": any, "not": lambda v: not v[0]}[name](values), end + 1
        if self.token[i + 1] == "=":
            name, i = name + "=" + self.token[i + 2], i + 2
        return name in HERE or name.startswith("feature="), i + 1

    def item(self, start):
        """The tokens of the item, statement, field or arm that begins there."""
        i = start
        while self.token[i] == "#":
            i = self.pair[i + 1] + 1
        to_semicolon = self.token[i] in ("const", "static", "let", "use", "type")
        is_item = self.token[i] in KEYWORDS
        while i < len(self.token) - 3:
            if self.token[i] == "mod" and self.token[i + 2] == ";":
                self.absent.add(self.token[i + 1])
            if self.token[i] == "{" and not to_semicolon:
                return range(start, self.pair[i] + 1)
            if self.token[i] in ("(", "[", "{"):
                i = self.pair[i]
            elif self.token[i] in ")]}" or (self.token[i] == "," and not is_item):
                break
            elif self.token[i] == ";":
                break
            i += 1
        return range(start, i + 1)

    def function(self, i):
        """The function that begins at `i`: its name, body and result."""
        if self.token[i] != "fn" or i in self.skipped or not self.is_word(i + 1):
            return None
        parameters = i + 2
        if self.token[parameters] == "<":
            parameters = self.closing(parameters) + 1
        k = after = self.pair[parameters] + 1
        while self.token[k] not in ("{", ";", "where"):
            k = self.pair[k] + 1 if self.token[k] in ("(", "[") else k + 1
        result = self.text[self.at[after] : self.end[k - 1]] if k > after else ""
        while self.token[k] not in ("{", ";"):
            k += 1
        if self.token[k] == ";":
            return None
        by_value = self.token[parameters + 1] == "self" or (
            self.token[parameters + 1] == "mut" and self.token[parameters + 2] == "self"
        )
        result = re.sub(r"\s+", " ", result).removeprefix("->").strip()
        return self.token[i + 1], i, k, self.pair[k], result, by_value

    def closing(self, i):
        depth = 0
        while True:
            depth += (self.token[i] == "<") - (self.token[i] == ">")
            if depth == 0:
                return i
            i = self.pair[i] if self.token[i] in ("(", "[", "{") else i
            i += 1
            if not self.token[i]:
                raise Unclear

    # ---- operands: with rustfmt's spaces it is clear which operators have two -----

    def ends_operand(self, i):
        return self.is_word(i) or self.is_literal(i) or self.token[i] in (")", "]", "?")

    def is_binary(self, i):
        return self.ends_operand(i - 1) and not self.touch(i - 1) and not self.touch(i)

    def left(self, i, precedence):
        """The first token of the operand before `i`."""
        i = self.first_of_primary(i - 1)
        while True:
            before = self.token[i - 1]
            if before == "mut" or (before in PREFIXES and self.touch(i - 1)):
                i -= 1
            elif before == "as":
                i = self.first_of_primary(i - 2)
            elif before == "|" and self.is_binary(i - 1):
                raise Unclear  # or a closure
            elif PRECEDENCE.get(before, 0) >= precedence and self.is_binary(i - 1):
                i = self.first_of_primary(i - 2)
            else:
                return i

    def first_of_primary(self, i):
        while True:
            if self.token[i] in (")", "]"):
                i = self.pair[i]
                if self.ends_operand(i - 1) and self.touch(i - 1):
                    i -= 1
                    continue
                if self.token[i - 1] == ">":
                    i -= 1
                    continue
                if self.token[i - 1] != "!" or not self.is_word(i - 2):
                    return i
                i -= 2
            elif self.token[i] == "?":
                i -= 1
                continue
            elif self.token[i] == ">":
                while self.token[i] != "<":
                    i -= 1
                if self.token[i - 1] != "::":
                    raise Unclear
                i -= 2
                continue
            elif not self.ends_operand(i):
                raise Unclear
            if self.token[i - 1] not in (".", "::"):
                return i
            i -= 2

    def right(self, i, precedence):
        """The token behind the operand that begins at `i`."""
        is_header = self.is_in_header(i)
        while True:
            while self.token[i] in (*PREFIXES, "mut"):
                i += 1
            i = self.end_of_primary(i, is_header)
            while self.token[i] == "as":
                i += 2
                while self.token[i] == "::":
                    i += 2
            if PRECEDENCE.get(self.token[i], 0) <= precedence or not self.is_binary(i):
                return i
            i += 1

    def end_of_primary(self, i, is_header):
        if self.token[i] in ("(", "["):
            i = self.pair[i]
        elif not self.is_word(i) and not self.is_literal(i):
            raise Unclear
        i += 1
        while True:
            token = self.token[i]
            if token in ("(", "["):
                i = self.pair[i]
            elif token in (".", "::"):
                i = self.closing(i + 1) if self.token[i + 1] == "<" else i + 1
            elif token == "!" and self.touch(i - 1) and i + 1 in self.pair:
                i = self.pair[i + 1]
            elif token == "{" and not is_header and self.token[i - 1][:1].isupper():
                i = self.pair[i]
            elif token != "?":
                return i
            i += 1

    def is_in_header(self, i):
        """Whether a block follows the expression, so that it is no structure's."""
        while self.token[i] not in ("(", "[", "{", "}", ";", "=>", ","):
            if self.token[i] in ("if", "while", "match", "for"):
                return True
            i = self.pair[i] - 1 if self.token[i] in (")", "]") else i - 1
        return False

    # ---- mutants -------------------------------------------------------------

    def sites(self, constant):
        """The places of all functions but those that constants call, which stay `const`."""
        sites = []
        for name, fn, start, end, result, by_value in self.functions:
            if self.token[fn - 1] == "const":
                if name in constant:
                    continue
                sites.append(Site(self.at[fn - 1], self.at[fn], name, [], "cut"))
            body = self.text[self.at[start] + 1 : self.at[end]].strip()
            values = [v for v in defaults(result, by_value) if body not in ("", v)]
            mutants = [(f"return {value}".strip(), f"return {value};") for value in values]
            sites.append(Site(self.end[start], self.at[end], name, mutants, "body"))
            for i in range(start, end):
                if i not in self.skipped and name == self.owner(i):
                    try:
                        sites += self.sites_at(i, name)
                    except (Unclear, KeyError):
                        pass
        return sites

    def owner(self, i):
        around = [f for f in self.functions if f[2] <= i < f[3]]
        return max(around, key=lambda f: f[2])[0]

    def sites_at(self, i, function):
        token = self.token[i]
        if token == "match":
            yield from self.sites_of_match(i, function)
        elif token == "!" and self.touch(i) and not (self.is_word(i - 1) and self.touch(i - 1)):
            end = self.end[self.right(i + 1, 99) - 1]
            yield Site(self.at[i], end, function, [("delete !", self.text[self.end[i] : end])])
        elif token in OTHER_OPERATORS and self.is_binary(i):
            precedence = PRECEDENCE.get(token)
            start = self.at[self.left(i, precedence or 99)]
            end = self.end[self.right(i + 1, precedence or 1) - 1]
            before, behind = self.text[start : self.at[i]], self.text[self.end[i] : end]
            others = OTHER_OPERATORS[token]
            mutants = [(f"{token} becomes {o}", before + o + behind) for o in others]
            yield Site(start, end, function, mutants)

    def sites_of_match(self, i, function):
        asked = i + 1
        while self.token[i] != "{":
            i = self.pair[i] + 1 if self.token[i] in ("(", "[") else i + 1
        if self.token[i + 1] in ("true", "false") and self.token[i + 2] == "=>":
            start, end = self.at[asked], self.end[i - 1]
            mutants = [("negate match", f"!({self.text[start:end]})")]
            yield Site(start, end, function, mutants)
        end, arms = self.pair[i], []
        i += 1
        while i < end:
            start, guard, is_skipped = i, None, i in self.skipped
            while i in self.skipped and self.token[i] == "#":
                start = i = self.pair[i + 1] + 1
            while self.token[i] != "=>":
                guard = i if self.token[i] == "if" else guard
                i = self.pair[i] + 1 if self.token[i] in ("(", "[", "{") else i + 1
            arrow = i
            i += 1
            if self.token[i] == "{":
                i = self.pair[i] + 1
            while i < end and self.token[i] != ",":
                if self.token[i] == "::" and self.token[i + 1] == "<":
                    i = self.closing(i + 1)
                elif self.token[i] in ("(", "[", "{"):
                    i = self.pair[i]
                elif self.token[arrow + 1] == "{":
                    break
                i += 1
            arms.append((start, guard, arrow, i, is_skipped))
            i += self.token[i] == ","
        *arms, last = arms
        rest = self.token[last[0]] if last[1] is None and last[2] == last[0] + 1 else ""
        has_rest = re.fullmatch(r"_|(?!true|false)[a-z]\w*", rest)
        for start, guard, arrow, end, is_skipped in [*arms, last]:
            pattern = self.text[self.at[start] : self.end[(guard or arrow) - 1]]
            pattern = re.sub(r"\s+", " ", pattern)
            if is_skipped:
                continue
            if guard:
                mutants = [(f"guard of {pattern} is {v}", v) for v in ("true", "false")]
                yield Site(self.at[guard + 1], self.end[arrow - 1], function, mutants)
            elif has_rest and start != last[0]:
                at, mutants = self.end[arrow - 1], [(f"delete arm {pattern}", "")]
                yield Site(at, at, function, mutants, "arm")


def defaults(result, by_value):
    """What a function may return at once, by its type."""
    simple = {
        "": [""],
        "bool": ["true", "false"],
        "fmt::Result": ["Ok(())"],
        "Duration": ["::std::time::Duration::ZERO"],
        "&str": ['""'],
        "&'static str": ['""'],
        "Self": ["self"] if by_value else [],
        "!": [],
    }
    if result in simple:
        return simple[result]
    if re.fullmatch(r"[iu](8|16|32|64|128|size)", result):
        return ["0", "1"]
    if result.startswith("&") or "impl " in result:
        return []
    for begin, wrapped in (("Poll<", "::std::task::Poll::Ready({})"), ("Result<", "Ok({})")):
        if result.removeprefix("io::").removeprefix("fmt::").startswith(begin):
            inside = result.split("<", 1)[1].removesuffix(">")
            nested = re.match(r"(io::|fmt::)?(Result|Option)<|\(\)|bool", inside)
            if not nested:
                return [wrapped.format("Default::default()")]
            inside = {"()": "", "bool": "bool"}.get(nested.group(), inside)
            return [wrapped.format(v or "()") for v in defaults(inside, False)]
    return ["None"] if result.startswith("Option<") else ["Default::default()"]
