"""Errors are held against what they tell (`tests/errors.py`) and never against a sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MOST_WORDS = 4
HELPERS, COLUMNS = {"refused", "assert_tells"}, {"fact", "facts", "match", "words", "said"}
SAID = re.compile(r"\.value\b|\.err\b|\bstderr\b|caplog|\b(error|refusal)\b|\.missing\b")
"""Where what was said to a user stands."""


def words_of_prose(text: str) -> int:
    """Words beside what is quoted, such as a command, and names with dots, underscores or dashes in them."""
    text = re.sub(r"`[^`]*`|'[^']*'|\S*[._/\-]\w\S*", " ", text)
    return len(re.findall(r"[A-Za-z]{2,}", text))


def literals(node: ast.expr) -> Iterator[str]:
    """A text that stands there; of an f-string the parts, of a list or tuple every member."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield " ".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    elif isinstance(node, (ast.Tuple, ast.List, ast.Starred)):
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.expr):
                yield from literals(inner)


def columns(names: list[str], rows: ast.expr) -> list[ast.expr]:
    """What a table of cases holds in the columns of facts."""
    table = [
        row.elts for row in getattr(rows, "elts", ()) if isinstance(row, ast.Tuple) and len(row.elts) == len(names)
    ]
    return [row[place] for row in table for place, name in enumerate(names) if name in COLUMNS]


def looked_for(node: ast.AST) -> list[ast.expr]:
    """What this node looks for in an error: a pattern, facts, a table of them, `"..." in str(error.value)`."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in HELPERS:
            return node.args[1:]
        if called == "pytest.mark.parametrize":
            names = [name for text in literals(node.args[0]) for name in re.findall(r"\w+", text)]
            return columns(names, node.args[1])
        return [keyword.value for keyword in node.keywords if keyword.arg == "match"]
    if isinstance(node, ast.For):
        return columns([ast.unparse(name) for name in getattr(node.target, "elts", ())], node.iter)
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
        return [node.left] if SAID.search(ast.unparse(node.comparators[0])) else []
    return []


def sentences(code: str) -> list[tuple[int, str]]:
    """Line and text of every sentence that a test looks for in an error."""
    found = [
        (expression.lineno, text)
        for node in ast.walk(ast.parse(code))
        for expression in looked_for(node)
        for text in literals(expression)
    ]
    return [(line, text) for line, text in found if words_of_prose(text) > MOST_WORDS]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("pytest.raises(E, match='the number of heads must divide the width')", True),
        ("pytest.raises(E, match=rf'{name} is not one of the allowed names')", True),
        ("refused(E, 'heads', 'it must divide the width evenly')", True),
        ("for n, facts in [(1, ['it must divide the width evenly'])]: ...", True),
        ("pytest.mark.parametrize('n, facts', [(1, 'it must divide the width evenly')])", True),
        ("assert 'it must divide the width evenly' in str(caught.value)", True),
        ("pytest.raises(E, match='num_heads')", False),
        ("refused(E, 'num_heads', 7, '`repae cache VAE --data DATA --out FOLDER`', 'run it again')", False),
        ("assert 'a page may be searched for whole sentences' in page", False),
    ],
)
def test_a_sentence_is_told_from_a_fact(code: str, found: bool) -> None:
    """Protects the rule below from being blind, and from refusing facts."""
    assert bool(sentences(code)) == found


def test_no_test_holds_an_error_against_a_sentence() -> None:
    """Protects whoever words an error better: what it tells is looked for piece by piece, in any order."""
    found = [
        f"{path.relative_to(TESTS)}:{line}: {text}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, text in sentences(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"{len(found)} sentences; name the facts, with tests/errors.py:\n" + "\n".join(found)
