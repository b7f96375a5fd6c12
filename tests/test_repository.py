"""The repository keeps its own rules: who imports whom, sizes, documents that are complete."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import config
from bridge.cli.exits import Exit
from bridge.cli.main import VERBS, verb_module
from engine.reject import Reason
from shadow.verdict import Kind

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "shadow", "bridge")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

# What decides: values in, values out.
PURE = (
    *sorted(f"engine/reference/{path.name}" for path in (ROOT / "engine/reference").glob("*.py")),
    *("engine/rules.py", "engine/market.py", "engine/wire.py", "engine/types.py"),
    *("engine/snapshot.py", "engine/snapshot_orders.py", "engine/reject.py"),
    *("shadow/normalise.py", "shadow/ordering.py", "shadow/diff.py", "shadow/verdict.py"),
    *("shadow/later.py", "shadow/later_book.py", "shadow/later_search.py", "shadow/later_track.py"),
    *("shadow/known.py", "shadow/operation.py", "shadow/legacy/mapping.py"),
    *("shadow/legacy/funds.py", "bridge/funds_moves.py"),
    *("shadow/legacy/convert.py", "shadow/legacy/rows.py"),
    *sorted(f"shadow/legacy/{path.name}" for path in (ROOT / "shadow/legacy").glob("audit*.py")),
    *sorted(f"bridge/onboard/{path.name}" for path in (ROOT / "bridge/onboard").glob("reco*.py")),
    *("bridge/onboard/evidence.py", "bridge/onboard/passed.py", "bridge/onboard/proofs.py"),
    *("bridge/onboard/render.py", "bridge/onboard/routes.py", "bridge/undecided.py"),
    *("bridge/gate.py", "bridge/stage.py", "bridge/config_rules.py"),
    *("bridge/proxy/desk/dialect.py", "bridge/proxy/plane/http1.py", "bridge/proxy/plane/body.py"),
    *("bridge/proxy/desk/answers.py", "bridge/proxy/desk/own.py", "bridge/proxy/desk/reply.py"),
    *("bridge/proxy/plane/head.py", "bridge/proxy/capture/redact.py", "bridge/proxy/route.py"),
)
IMPURE_MODULES = {"asyncio", "socket", "time", "os", "random", "subprocess", "threading"}


def tracked() -> list[Path]:
    """Files under version control, and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def python_files(*packages: str) -> list[Path]:
    return sorted(
        path
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "target" not in path.parts
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=name_of(path))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_packages_import_only_what_is_to_their_left() -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for position, package in enumerate(PACKAGES)
        for path in python_files(package)
        for module in imported(tree_of(path))
        if module.partition(".")[0] in PACKAGES[position + 1 :]
    ]
    assert wrong == []


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_clock_chance_environment_or_socket(name: str) -> None:
    roots = {module.partition(".")[0] for module in imported(tree_of(ROOT / name))}
    assert roots & IMPURE_MODULES == set()


def test_no_float_is_made_in_the_engine() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files("engine")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "float"
        # an infinity is a bound of waiting, never a price
        and not (node.args and isinstance(node.args[0], ast.Constant))
    ]
    assert wrong == []


def test_every_module_has_a_docstring() -> None:
    files = python_files(*PACKAGES, "migrations", "tests")
    assert [name_of(path) for path in files if not ast.get_docstring(tree_of(path))] == []


def test_files_and_functions_stay_small() -> None:
    large = []
    for path in python_files(*PACKAGES, "migrations", "tests"):
        lines = len(path.read_text().splitlines())
        if lines > FILE_LINES_MAX:
            large.append(f"{name_of(path)}: {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    large.append(f"{name_of(path)}: {node.name} has {length} lines")
    for core in (ROOT / "engine/core", ROOT / "bridge/proxy/core"):
        for path in core.rglob("*.rs"):
            lines = len(path.read_text().splitlines())
            if "target" not in path.parts and lines > FILE_LINES_MAX:
                large.append(f"{name_of(path)}: {lines} lines")
    assert large == []


def test_nothing_is_left_to_do_in_the_text() -> None:
    # in two pieces, so that this file does not name what it looks for
    left = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
    wrong = [
        f"{name_of(path)}:{n}"
        for path in tracked()
        for n, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if left.search(line)
    ]
    assert wrong == []


def test_no_file_names_this_machine_or_a_package_registry() -> None:
    machine = re.compile(r"(?<![\w.~-])/(work|root|home)/\w")
    registry = re.compile(r"pypi\.org|pythonhosted|crates\.io|index-url|registry\.\w+\.\w+", re.I)
    wrong = [
        f"{name_of(path)}:{n}: {line.strip()[:80]}"
        for path in tracked()
        if path != Path(__file__)
        for n, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if machine.search(line) or registry.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented_and_its_help_has_an_example(verb: str) -> None:
    assert f"## {verb}\n" in doc("reference/cli.md")
    module = verb_module(verb)
    assert f"railswitch {verb}" in module.EXAMPLE
    assert module.DESCRIPTION.strip()


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_documented(verb: str) -> None:
    """In the verb's own section, or in the introduction where the shared ones are."""
    page = doc("reference/cli.md")
    own = page.partition(f"## {verb}\n")[2].partition("\n## ")[0]
    shared = page.partition("\n## ")[0]
    configured = argparse.ArgumentParser()
    verb_module(verb).configure(configured)
    options = {
        word
        for action in configured._actions
        for word in action.option_strings
        if word.startswith("--")
    }
    assert [one for one in sorted(options) if f"`{one}" not in own + shared] == []


def test_help_of_the_command_names_every_verb() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "bridge.cli.main", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [verb for verb in VERBS if f"    {verb} " not in shown] == []


def test_every_exit_code_is_documented() -> None:
    page = doc("reference/exit-codes.md")
    assert [code for code in Exit if f"| {code.value} |" not in page] == []


def test_every_reject_reason_is_documented_with_its_number() -> None:
    page = doc("reference/reject-reasons.md")
    assert [
        reason for reason in Reason if f"| {reason.value} | `{reason.name}` |" not in page
    ] == []


def test_every_kind_of_mismatch_is_documented() -> None:
    page = doc("reference/mismatch-kinds.md")
    assert [kind for kind in Kind if f"| `{kind.value}` |" not in page] == []


def test_every_configuration_key_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([\w.\[\]]+)` \|", doc("reference/config.md"), re.MULTILINE))
    assert documented == set(config.keys())


def test_every_table_of_the_control_store_is_documented() -> None:
    page = doc("reference/control-store.md")
    made = {
        table
        for path in (ROOT / "migrations" / "versions").glob("*.sql")
        for table in re.findall(r"CREATE TABLE railswitch\.(\w+)", path.read_text())
    }
    assert made
    assert [table for table in sorted(made) if f"`{table}`" not in page] == []


def test_every_page_can_be_found_from_the_index() -> None:
    index = doc("README.md")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{name_of(path)}: {link}"
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / link).exists()
    ]
    assert broken == []


def test_changelog_has_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    headings = [line for line in lines if line.startswith("#")]
    allowed = re.compile(r"# Changelog|## (Unreleased|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\))")
    sections = ("### Safety", "### Features", "### Internals")
    assert [one for one in headings if not allowed.fullmatch(one) and one not in sections] == []
    assert any(line.startswith("## ") for line in headings)
