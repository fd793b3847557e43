"""Mutation test: make 30 small changes, drawn with a seed, and check that the tests of the changed module fail.

    python bench/mutations.py                 tries all
    python bench/mutations.py --only 3 17     tries two of them and keeps the recorded results of the others
    python bench/mutations.py --list          lists the changes

Each change is made in a temporary copy of the checkout, never in the checkout itself. A change is drawn as a key of
`TARGETS`, a kind and the index of a place where this kind is possible, in the order of the file: a seed draws the same
changes after reformatting, and after modules or names are renamed.

Results are written to `bench/results/mutations.json`, and as a table to `mutations.txt`. A change that survives shows a
missing test, or has no effect that a test could see: those are listed in `EQUIVALENT` with the reason.
"""

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench" / "results" / "mutations.json"
COUNT, SEED = 30, 20


@dataclass(frozen=True)
class Target:
    """Modules to change, and the test files that should notice.

    Attributes:
        modules: by dotted name, the names at their top level that are changed; none means all of them.
        tests: paths from the root of the checkout.
    """

    modules: dict[str, tuple[str, ...]]
    tests: tuple[str, ...]


TARGETS = {
    "intervals": Target(
        {"unfreeze.statistics.intervals": ()},
        ("tests/statistics/test_intervals.py", "tests/statistics/test_comparisons.py"),
    ),
    "selection": Target(
        {"unfreeze.statistics.selection": ()},
        ("tests/statistics/test_selection.py", "tests/statistics/test_recipe_ranking.py"),
    ),
    "network": Target(
        {"unfreeze.model.network": ()},
        ("tests/model/test_network.py", "tests/study/test_frozen.py", "tests/end_to_end/test_oracle.py"),
    ),
    "split": Target(
        {"unfreeze.data.split": ()},
        ("tests/data/test_split.py", "tests/study/test_given_splits.py", "tests/data/test_lookalikes_scenes.py"),
    ),
    "subset": Target({"unfreeze.data.subset": ()}, ("tests/data/test_subset.py",)),
    "keys": Target(
        {
            "unfreeze.activations.keys": (
                "PrefixKey",
                "ActivationKey",
                "prefix_of",
                "plain_key",
                "training_key",
                "validation_key",
            ),
            "unfreeze.activations.store": (),
        },
        (
            "tests/activations/test_store.py",
            "tests/study/test_activation_plan.py",
            "tests/study/test_reuse.py",
            "tests/end_to_end/test_kept_study.py",
            "tests/end_to_end/test_oracle.py",
        ),
    ),
    "atomic": Target(
        {"unfreeze.storage.atomic": ()},
        ("tests/storage/test_atomic.py", "tests/test_locked.py", "tests/storage/test_records.py"),
    ),
    "trainer": Target(
        {"unfreeze.train.phase_run": (), "unfreeze.train.gradients": (), "unfreeze.train.trainer": ()},
        (
            "tests/train/test_phase_run.py",
            "tests/train/test_trainer.py",
            "tests/train/test_micro_batch.py",
            "tests/end_to_end/test_oracle.py",
        ),
    ),
}

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "subset",
        "drawn = draw_split(catalog, split, None if split.folds is None else 0)",
        "drawn = draw_split(catalog, split, None if split.folds is None else 1)",
    ): "one fold stands for all, and any will do",
}
"""Why a change cannot be noticed, by key of `TARGETS` and the line before and after it."""

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
EXTREMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}
Changed = Iterator[ast.AST]


def comparison(node: ast.AST) -> Changed:
    """Let < be <=, == be !=, in be not in, and the other way round."""
    if isinstance(node, ast.Compare):
        for place, found in enumerate(node.ops):
            operators = [*node.ops[:place], COMPARISONS[type(found)](), *node.ops[place + 1 :]]
            yield ast.Compare(node.left, operators, node.comparators)


def arithmetic(node: ast.AST) -> Changed:
    """Let + be -, and the other way round."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)


def constant(node: ast.AST) -> Changed:
    """Let a whole number be one more."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)


def default(node: ast.AST) -> Changed:
    """Double a number that is a default or a setting of the module; let 0 be 1."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and hasattr(node, "is_default"):
        yield ast.Constant(2 * node.value or 1)


def negation(node: ast.AST) -> Changed:
    """Drop a not."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand


def extreme(node: ast.AST) -> Changed:
    """Let min be max, any be all, and the other way round."""
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Name) and called.id in EXTREMES:
        yield ast.Call(ast.Name(EXTREMES[called.id]), node.args, node.keywords)  # type: ignore[attr-defined]
    elif isinstance(called, ast.Attribute) and called.attr in EXTREMES:
        other = ast.Attribute(called.value, EXTREMES[called.attr])
        yield ast.Call(other, node.args, node.keywords)  # type: ignore[attr-defined]


def truth(node: ast.AST) -> Changed:
    """Let True be False, and the other way round."""
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)


def junction(node: ast.AST) -> Changed:
    """Let and be or, and the other way round."""
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)


def entry(node: ast.AST) -> Changed:
    """Leave an entry out of a mapping."""
    if isinstance(node, ast.Dict):
        for place in range(len(node.keys)):
            yield ast.Dict(*(some[:place] + some[place + 1 :] for some in (node.keys, node.values)))


def leaving(node: ast.AST) -> Changed:
    """Drop a return, raise, break or continue that ends an if."""
    if hasattr(node, "is_early"):
        yield ast.Pass()


KINDS = (comparison, arithmetic, constant, default, negation, extreme, truth, junction, entry, leaving)


@dataclass(frozen=True)
class Mutation:
    """A change: its number, what was drawn, and the text of its file after it."""

    number: int
    key: str
    kind: str
    index: int
    file: str
    line: int
    before: str
    after: str
    text: str


def places(tree: ast.Module, names: Sequence[str]) -> Iterator[ast.AST]:
    """Yield the nodes that a change may be made to, in the order of the file; of those at the top level with names.

    No change is made to annotations and decorators, inside f-strings, and to ``strict`` of zip, which checks itself.

    Raises:
        ValueError: a name is not there.
    """
    tops = {name: node for node in tree.body for name in _names(node)}
    if unknown := sorted(set(names) - tops.keys()):
        raise ValueError(f"{', '.join(unknown)} not found; fix TARGETS")
    for node in tree.body:
        if not names or set(_names(node)) & set(names):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                _mark(node.value, "is_default")
            yield from _inside(node)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _mark(node: ast.AST | None, mark: str) -> None:
    for inner in ast.walk(node) if node is not None else ():
        setattr(inner, mark, True)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.arguments):
        for value in [*node.defaults, *node.kw_defaults]:
            _mark(value, "is_default")
    if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Return | ast.Raise | ast.Break | ast.Continue):
        node.body[-1].is_early = True  # type: ignore[union-attr]
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.JoinedStr):
            continue
        if isinstance(node, ast.keyword) and node.arg == "strict":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _inside(child)


def replaced(source: str, node: ast.AST, other: ast.AST) -> str:
    """Return a file's text with one node replaced, all else as it is."""
    text = ast.unparse(other)
    if not isinstance(other, ast.Constant | ast.stmt):
        text = f"({text})"
    lines, whole = source.encode().splitlines(keepends=True), source.encode()  # columns count bytes
    begin = sum(map(len, lines[: node.lineno - 1])) + node.col_offset  # type: ignore[attr-defined]
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset  # type: ignore[attr-defined]
    return (whole[:begin] + text.encode() + whole[end:]).decode()


def changes(key: str, kind: Callable[[ast.AST], Changed]) -> list[tuple[str, int, str, str, str]]:
    """Return file, line, that line before and after, and the file's text of every change of a kind."""
    found = []
    for module, names in TARGETS[key].modules.items():
        path = Path("src", *module.split(".")).with_suffix(".py")
        source = (ROOT / path).read_text(encoding="utf-8")
        for node in places(ast.parse(source), names):
            for other in kind(node):
                text = replaced(source, node, other)
                pairs = enumerate(zip(source.splitlines(), text.splitlines(), strict=False), 1)
                line, (before, after) = next((line, pair) for line, pair in pairs if pair[0] != pair[1])
                if isinstance(other, ast.Dict):
                    line, before, after = _left_out(node, other)
                found.append((path.as_posix(), line, before.strip(), after.strip(), text))
    return found


def _left_out(node: ast.AST, other: ast.Dict) -> tuple[int, str, str]:
    """Return line, text before and text after of the entry that a mapping lacks."""
    for key, value in zip(node.keys, node.values, strict=True):  # type: ignore[attr-defined]
        if value not in other.values:
            name = f"{ast.unparse(key)}: " if key is not None else "**"
            return value.lineno, f"{name}{ast.unparse(value)}", "left out"
    raise ValueError("no entry is left out")


def draw(seed: int) -> list[Mutation]:
    """Draw the changes: the targets in turn, a kind that has places there, and one of these; each once."""
    found: dict[tuple[str, str, int], Mutation] = {}
    keys = list(TARGETS)
    for number in range(COUNT):
        chance, key = random.Random(f"{seed} {number}"), keys[number % len(keys)]
        while True:
            kind, share = chance.choice(KINDS), chance.random()
            there = changes(key, kind)
            drawn = (key, kind.__name__, int(share * len(there)))
            if there and drawn not in found:
                found[drawn] = Mutation(number, *drawn, *there[drawn[2]])
                break
    return list(found.values())


def copied(folder: Path) -> Path:
    """Copy the checkout's files, those that git ignores left out; return where the copy lies."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def tested(place: Path, tests: Sequence[str], limit: float) -> tuple[int | None, str, float]:
    """Run test files in a copy up to the first failure; return the exit code, None for out of time, output, seconds."""
    scratch, log = place.parent / "scratch", place.parent / "log"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(place / "src"), str(place)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider"]
    began = time.perf_counter()
    with log.open("wb") as written:  # no pipe: what a killed test started may hold its end open
        process = subprocess.Popen(
            [*command, f"--basetemp={scratch}", *tests],
            cwd=place,
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the processes that its tests started, too
        process.wait()
        code = None
    return code, log.read_text(encoding="utf-8", errors="replace"), time.perf_counter() - began


def usual_seconds(place: Path, key: str, known: dict[str, float]) -> float:
    """Return how long a target's tests take without a change, measured once; stop where they fail."""
    if key not in known:
        code, output, known[key] = tested(place, TARGETS[key].tests, 3600)
        if code != 0:
            raise SystemExit(f"{output}\n\nthe tests of {key} fail without any change; fix them first")
    return known[key]


def tried(place: Path, mutation: Mutation, limit: float) -> dict[str, object]:
    """Make one change in the copy, run its tests, take the change back; return its row of the record."""
    path = place / mutation.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutation.text, encoding="utf-8")
    try:
        code, output, seconds = tested(place, TARGETS[mutation.key].tests, limit)
    finally:
        path.write_text(source, encoding="utf-8")
    row: dict[str, object] = {name: value for name, value in asdict(mutation).items() if name != "text"}
    reason = EQUIVALENT.get((mutation.key, mutation.before, mutation.after), "")
    outcome = "timed out" if code is None else "caught" if code else "equivalent" if reason else "survived"
    failed = [line.split()[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    by = (failed[0] if failed else output.strip().splitlines()[-1]) if outcome == "caught" else reason
    return row | {"outcome": outcome, "by": by, "seconds": round(seconds, 1)}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return the record as text, two lines a change."""
    lines = []
    for row in rows:
        reason = f": {row['by']}" if row["by"] else ""
        lines.append(f"{row['number']:>2} {row['key']}, {row['kind']} {row['index']}: {row['outcome']}{reason}")
        lines.append(f"   {row['file']}:{row['line']}: {row['before']}  ->  {row['after']}")
    count = {name: sum(row["outcome"] == name for row in rows) for name in ("caught", "timed out", "equivalent")}
    totals = ", ".join(f"{number} {name}" for name, number in count.items())
    return "\n".join([*lines, "", f"{len(rows)} changes: {totals}, {len(rows) - sum(count.values())} survived", ""])


def main() -> None:
    """Draw, try and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers of the changes to try")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--list", action="store_true", help="show the changes and try none")
    options = parser.parse_args()
    drawn = [mutation for mutation in draw(options.seed) if options.only is None or mutation.number in options.only]
    if options.list:
        for mutation in drawn:
            place = f"{mutation.file}:{mutation.line}"
            print(f"{mutation.number:>2} {mutation.key}, {mutation.kind} {mutation.index}: {place}")
            print(f"   {mutation.before}  ->  {mutation.after}")
        return
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows = {row["number"]: row for row in recorded.get("changes", ())} if recorded.get("seed") == options.seed else {}
    known: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = copied(Path(folder) / "checkout")
        for mutation in drawn:
            limit = 60 + 5 * usual_seconds(copy, mutation.key, known)
            rows[mutation.number] = tried(copy, mutation, limit)
            print(table([rows[mutation.number]]).split("\n\n")[0], flush=True)
            found = [rows[number] for number in sorted(rows)]
            RECORD.write_text(json.dumps({"seed": options.seed, "changes": found}, indent=1) + "\n", encoding="utf-8")
            RECORD.with_suffix(".txt").write_text(table(found), encoding="utf-8")
    print(table(found).strip().splitlines()[-1])


if __name__ == "__main__":
    main()
