"""Rules about the source itself that no linter in use can state.

Which package may import which, and that the core is pure, is `lint-imports`' part (its contracts
are in `pyproject.toml`). Each rule here is a function from a parsed module to what breaks it, so
that the rule is tested too: on the package, and on sources that break it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "kvtwist"

REACTOR = "twisted.internet.reactor"

# What can make code out of data, by module and by built-in function.
EVALUATING_MODULES = {
    "_pickle",
    "code",
    "codeop",
    "copyreg",
    "dbm",
    "marshal",
    "pickle",
    "runpy",
    "shelve",
    "twisted.persisted",
    "twisted.spread",
}
EVALUATING_FUNCTIONS = {"__import__", "compile", "eval", "exec"}

STANDARD_STREAMS = {"__stderr__", "__stdin__", "__stdout__", "stderr", "stdin", "stdout"}

Rule = Callable[[ast.Module], Iterator[tuple[int, str]]]


def sources() -> dict[str, ast.Module]:
    """Every module of the package, by its path in the checkout."""
    return {
        str(path.relative_to(CHECKOUT)): ast.parse(path.read_bytes(), str(path))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes under *node* that run when its module is imported: not the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from run_at_import(child)


def imported(node: ast.AST) -> list[str]:
    """What an import statement may load, dotted; ``from a import b`` is both ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def reactor_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Imports of the reactor that run with the import of the module."""
    for node in run_at_import(tree):
        if REACTOR in imported(node):
            yield node.lineno, "imports the reactor"  # type: ignore[attr-defined]


def console_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """``print``, and the standard streams by any name."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="print"):
                yield node.lineno, "prints"
            case ast.Attribute(value=ast.Name(id="sys"), attr=attr) if attr in STANDARD_STREAMS:
                yield node.lineno, f"uses sys.{attr}"
            case ast.ImportFrom(module="sys", names=names):
                for alias in names:
                    if alias.name in STANDARD_STREAMS:
                        yield node.lineno, f"uses sys.{alias.name}"


def evaluations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Whatever can make code out of data."""
    for node in ast.walk(tree):
        for name in imported(node):
            if any(f"{name}.".startswith(f"{module}.") for module in EVALUATING_MODULES):
                yield node.lineno, f"imports {name}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Name) and node.id in EVALUATING_FUNCTIONS:
            yield node.lineno, f"uses {node.id}"


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The module, its public classes and functions, and their public methods: what lacks one."""
    if not ast.get_docstring(tree):
        yield 1, "the module has no docstring"
    yield from _undocumented_in(tree, "")


def _undocumented_in(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[int, str]]:
    for node in scope.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_") or _is_overload(node):
            continue
        if not ast.get_docstring(node):
            yield node.lineno, f"{prefix}{node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_in(node, f"{prefix}{node.name}.")


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether it is another signature of the function that follows, which has the docstring."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def unset_fields(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Dataclasses with an ``__init__`` of their own that does something else than the one that
    would have been made: one parameter for each field, set as it comes, which then stays."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or not any(map(_is_dataclass, node.decorator_list)):
            continue
        fields = {
            ast.unparse(each.target): ast.unparse(each.annotation)
            for each in node.body
            if isinstance(each, ast.AnnAssign)
        }
        for made in node.body:
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                taken = {
                    each.arg: f"Final[{ast.unparse(each.annotation)}]"
                    for each in made.args.args[1:]
                    if each.annotation is not None
                }
                does = [ast.unparse(each) for each in made.body]
                is_plain = does == [f"self.{name} = {name}" for name in fields]
                if list(taken.items()) != list(fields.items()) or not is_plain:
                    yield made.lineno, f"{node.name}.__init__ does not just set its Final fields"


def _is_dataclass(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).partition("(")[0] == "dataclass"


class PackageTests(SynchronousTestCase):
    """The rules, on the package."""

    maxDiff = None

    def assert_holds(self, rule: Rule, *exempt: str) -> None:
        """No module breaks *rule*, apart from those under a path in *exempt*."""
        breaches = [
            f"{path}:{line}: {what}"
            for path, tree in sources().items()
            if not path.startswith(exempt)
            for line, what in rule(tree)
        ]
        self.assertEqual(breaches, [], "\n" + "\n".join(breaches))

    def test_sources_are_found(self) -> None:
        """Without this, all the rules would hold in a checkout where the package has moved."""
        self.assertIn("kvtwist/__init__.py", sources())
        self.assertIn("kvtwist/core/__init__.py", sources())

    def test_plugins_are_no_package(self) -> None:
        """T3: an ``__init__.py`` here would replace Twisted's own in site-packages, and with it
        uninstalling kvtwist would break every ``twistd`` command in that environment."""
        self.assertEqual(list((CHECKOUT / "twisted").rglob("__init__.py*")), [])

    def test_plugin_file_is_one_literal(self) -> None:
        """T3: Twisted swallows what a plugin file raises, so that ``twistd`` would have no
        ``kvnode`` and nobody would learn why. One import and a literal cannot raise."""
        plugin = CHECKOUT / "twisted" / "plugins" / "kvtwist_plugin.py"
        tree = ast.parse(plugin.read_bytes())
        docstring, import_, assignment = tree.body
        self.assertEqual(imported(import_)[0], "twisted.application.service")
        assert isinstance(docstring, ast.Expr)
        assert isinstance(assignment, ast.Assign)
        assert isinstance(assignment.value, ast.Call)
        for argument in assignment.value.args:
            ast.literal_eval(argument)

    def test_reactor_is_given(self) -> None:
        """A module that imports the reactor installs one: the host program of an embedded node, or
        ``twistd --reactor=...``, could no longer choose its own."""
        self.assert_holds(reactor_imports)

    def test_importing_everything_installs_no_reactor(self) -> None:
        """The same, for what the imported modules import in their turn."""
        modules = [
            path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for path in sources()
        ]
        program = (
            "import importlib, sys\n"
            f"for name in {modules!r}:\n"
            "    importlib.import_module(name)\n"
            f"    assert {REACTOR!r} not in sys.modules, name\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_only_the_command_line_prints(self) -> None:
        """A node inside another program must leave that program's output alone; what a node has to
        say goes to its log. ``tap`` says why a node cannot start, before there is a log."""
        self.assert_holds(console_uses, "kvtwist/cli/", "kvtwist/tap.py")

    def test_nothing_makes_code_out_of_data(self) -> None:
        """T6: bytes from the network or the disk must never become code: whoever reaches the port
        of such a node owns the machine."""
        self.assert_holds(evaluations)

    def test_everything_public_is_documented(self) -> None:
        """Who reads the package in an afternoon learns from the docstrings what each thing is for;
        one that is missing sends them to read the callers."""
        self.assert_holds(undocumented)

    def test_fields_are_what_was_given(self) -> None:
        """A message or an entry is compared, shown and copied by its fields: what its own
        ``__init__`` made of them, or forgot, would be lost on the way."""
        self.assert_holds(unset_fields)


class RuleTests(SynchronousTestCase):
    """The rules find what they are for: one that finds nothing would let everything pass."""

    def assert_found(self, rule: Rule, source: str, *expected: tuple[int, str]) -> None:
        """*rule* finds exactly *expected* in *source*."""
        self.assertEqual(list(rule(ast.parse(source))), list(expected))

    def test_reactor_imports(self) -> None:
        """In each spelling, at the top, in a condition, in a class."""
        found = (1, "imports the reactor")
        for source in (
            "from twisted.internet import defer, reactor",
            "from twisted.internet import reactor as clock",
            "import twisted.internet.reactor",
            "from twisted.internet.reactor import callLater",
        ):
            self.assert_found(reactor_imports, source, found)
        self.assert_found(
            reactor_imports, "if x:\n from twisted.internet import reactor", (2, found[1])
        )
        self.assert_found(
            reactor_imports, "class A:\n from twisted.internet import reactor", (2, found[1])
        )

    def test_reactor_imports_in_functions(self) -> None:
        """``makeService`` may: by then whoever starts the process has chosen."""
        self.assert_found(reactor_imports, "def f():\n from twisted.internet import reactor")
        self.assert_found(reactor_imports, "from twisted.internet import defer")

    def test_console_uses(self) -> None:
        """The streams by attribute and by name, and ``print`` handed on."""
        self.assert_found(console_uses, "print(1)", (1, "prints"))
        self.assert_found(console_uses, "f(report=print)", (1, "prints"))
        self.assert_found(console_uses, "sys.stderr.write(x)", (1, "uses sys.stderr"))
        self.assert_found(
            console_uses, "from sys import argv, stdout as out", (1, "uses sys.stdout")
        )
        self.assert_found(console_uses, "sys.exit(1)\nself.print(2)")

    def test_evaluations(self) -> None:
        """Modules, their submodules, names from them, and the built-in functions."""
        self.assert_found(evaluations, "import pickle", (1, "imports pickle"))
        self.assert_found(
            evaluations, "from twisted.spread import jelly",
            (1, "imports twisted.spread"), (1, "imports twisted.spread.jelly"),
        )  # fmt: skip
        self.assert_found(evaluations, "from twisted import spread", (1, "imports twisted.spread"))
        self.assert_found(evaluations, "eval(x)", (1, "uses eval"))
        self.assert_found(evaluations, "import codecs\nre.compile(x)\nast.literal_eval(x)")

    def test_undocumented(self) -> None:
        """Everything public, down to the methods; nothing private."""
        self.assert_found(
            undocumented,
            "def f(): ...\n"
            "class A:\n"
            "    def m(self): ...\n"
            "    def __init__(self): ...\n"
            "class _B:\n"
            "    def m(self): ...\n",
            (1, "the module has no docstring"),
            (1, "f has no docstring"),
            (2, "A has no docstring"),
            (3, "A.m has no docstring"),
        )
        self.assert_found(
            undocumented,
            "'''M.'''\n@overload\ndef f(x: int): ...\ndef f(x):\n    '''F.'''\n",
        )

    def test_unset_fields(self) -> None:
        """A field that may change, that is not set, that is no parameter, in another order."""
        start = "@dataclass(slots=True)\nclass A:\n    a: Final[int]\n    b: Final[int]\n"
        good = (
            "    def __init__(self, a: int, b: int = 0):\n        self.a = a\n        self.b = b\n"
        )
        self.assert_found(unset_fields, start + good)
        self.assert_found(unset_fields, start)
        self.assert_found(unset_fields, (start + good).replace("@dataclass(slots=True)", ""))
        for was, is_now in (
            ("b: Final[int]", "b: int"),
            ("        self.b = b\n", ""),
            ("self.b = b", "self.b = a"),
            (", b: int = 0", ""),
            ("a: int, b: int = 0", "b: int, a: int"),
            ("b: int = 0", "b: str = 0"),
        ):
            self.assert_found(
                unset_fields,
                (start + good).replace(was, is_now),
                (5, "A.__init__ does not just set its Final fields"),
            )
