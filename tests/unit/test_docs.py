"""README and docs: every command is one of the real parser or the Makefile, every path, link and import resolves."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from console.cli.arguments import build
from console.cli.options import Parser
from console.export.schema import TABLES
from console.sentinels import rules as sentinel_rules
from console.settings import file as settings
from console.settings.keys import TABS
from console.status import link_health
from console.tui.command.grammar import COMMANDS
from driftline import config
from driftline.catalog import corrections, fixes, metrics

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
PACKAGES = ("driftline", "engine", "trainer", "console")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OTHER_PROGRAMS = {"pip", "ssh", "source", "vllm"}
"""Programs of others that a shell block may call; nothing is checked of those lines but that they can be split."""
LANGUAGES = {"sh", "text", "python", "toml"}
BANNED = ("told", "nobody", "somebody", "whoever")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


class Fence(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


def fences(page: Path) -> list[Fence]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Fence(*one) for one in found]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline(page: Path) -> list[str]:
    """What stands in backticks outside of fenced blocks."""
    return [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> Iterator[list[str]]:
    """Every command line of a page, as words without comments, redirections and assignments before it."""
    lines = [line for fence in fences(page) if fence.language == "sh" for line in fence.text.splitlines()]
    programs = r"(?:make|driftline|\.venv/bin/\S+|\.venv-bench/bin/\S+) \S"
    lines += [code for code in inline(page) if re.match(programs, code) and code not in named_verbs()]
    for line in lines:
        words = [word for word in shlex.split(line, comments=True) if not word.startswith(("<", ">"))]
        if words:
            yield words


@functools.cache
def named_verbs() -> frozenset[str]:
    """`driftline export` and the like: they name a verb in a sentence and leave out what it takes."""
    return frozenset(" ".join(("driftline", *verb)) for verb in verbs(build()))


def complaint(words: list[str]) -> str:
    """What is wrong with a command, "" for nothing. What is set for it alone stands before it."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, rest = words[0], words[1:]
    if program in ("driftline", ".venv/bin/driftline"):
        return parse_error(rest)
    if program == "make":
        unknown = [word for word in rest if "=" not in word and word not in targets()]
        return f"no target of the Makefile: {', '.join(unknown)}" if unknown else ""
    if program.endswith("/bin/python"):
        if rest[0] == "-m" and (rest[1] == "pytest" or importlib.util.find_spec(rest[1]) is not None):
            missing = [word for word in rest[2:] if word.startswith("tests/") and not (ROOT / word).exists()]
            missing += [word for word in rest[2:] if word.startswith("bench_") and not bench(word).exists()]
            return f"missing: {', '.join(missing)}" if missing else ""
        return "" if (ROOT / rest[0]).exists() else f"no such script: {rest[0]}"
    return "" if program in OTHER_PROGRAMS else f"unknown program: {program}"


def bench(name: str) -> Path:
    return ROOT / "tests" / "bench" / f"{name}.py"


def parse_error(arguments: list[str]) -> str:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build(arguments).parse_args(arguments)
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    return ""


@functools.cache
def targets() -> frozenset[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


@each_page
def test_every_command_is_one_that_there_is(page: Path) -> None:
    wrong = {shlex.join(words): said for words in commands(page) if (said := complaint(words))}
    assert wrong == {}


@pytest.mark.parametrize(
    "line",
    [
        "driftline atach",
        "driftline fix set",
        "driftline tail --seconds soon",
        "driftline export --table nothing --out a.csv",
        "make nothing",
        ".venv/bin/python scripts/nothing.py",
        "curl example.org",
    ],
)
def test_a_command_that_there_is_not_is_found(line: str) -> None:
    assert complaint(shlex.split(line)) != ""


def test_the_workflow_and_the_hooks_call_what_there_is() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    called = re.findall(r"run: make (\S+)", workflow)
    assert {"test-quick", "test"} <= set(called)
    assert [target for target in called if target not in targets()] == []
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(1)", ".venv/bin")
    entries = re.findall(r"entry: (.+)", hooks)
    assert len(entries) == 4
    assert [entry for entry in entries if entry not in recipe] == []
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}


def test_every_test_with_an_engine_is_where_the_makefile_looks_for_it() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"^WITH_ENGINES := (.+)$", recipe, re.MULTILINE)
    assert found is not None
    folders = [ROOT / folder for folder in found[1].split()]
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.engine" in path.read_text(encoding="utf-8")]
    assert len(marked) > 10
    assert [path for path in marked if path != Path(__file__) and not any(map(path.is_relative_to, folders))] == []


@each_page
def test_every_fenced_block_has_a_language_of_ours(page: Path) -> None:
    assert [fence for fence in fences(page) if fence.language not in LANGUAGES] == []
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(fences(page))


# Paths


def named_paths(page: Path) -> list[tuple[str, str]]:
    """What looks like a path of the repository in backticks, with the name in it that follows a colon, or ""."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in (".venv", "runs")}
    found = []
    for code in inline(page):
        match = re.fullmatch(r"([\w./-]+?)(?::([A-Za-z_]\w*))?", code)
        if match is None or match[1] in metrics.BY_NAME:
            continue
        path = match[1]
        if ("/" in path and path.split("/")[0] in top) or path in {child.name for child in ROOT.iterdir()}:
            found.append((path, match[2] or ""))
    return found


@each_page
def test_every_path_exists(page: Path) -> None:
    assert [path for path, _ in named_paths(page) if not (ROOT / path).exists()] == []


@each_page
def test_every_name_after_a_path_is_defined_there(page: Path) -> None:
    missing = [f"{path}:{name}" for path, name in named_paths(page) if name and name not in defined(ROOT / path)]
    assert missing == []


@functools.cache
def defined(path: Path) -> set[str]:
    """Functions, methods, classes and constants of a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@each_page
def test_every_link_inside_resolves(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name) if name else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            missing.append(target)
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", head.lower()).strip().replace(" ", "-") for head in heads}


# Code


@each_page
def test_every_python_block_compiles_and_its_imports_resolve(page: Path) -> None:
    for fence in fences(page):
        if fence.language != "python":
            continue
        tree = ast.parse(fence.text, str(page))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@each_page
def test_every_toml_block_is_one_that_can_be_used(page: Path, tmp_path: Path) -> None:
    for fence in fences(page):
        if fence.language != "toml":
            continue
        if "[rules." in fence.text:
            sentinel_rules.parse(fence.text, str(page))
        elif "[keys]" in fence.text:
            own = tmp_path / "config.toml"
            own.write_text(fence.text, encoding="utf-8")
            settings.check_keys(settings.load({settings.CONFIG_VARIABLE: str(own)}))
        else:
            config.parse(fence.text, str(page))


# What the pages must say


def test_the_readme_is_short() -> None:
    readme = (ROOT / "README.md").read_bytes()
    assert 7_000 <= len(readme) <= 9_000
    assert b"make demo" in readme
    assert b"make test" in readme


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()


def test_every_verb_stands_on_the_page_of_the_command_line() -> None:
    shown = {tuple(words[1:3]) for words in commands(ROOT / "docs" / "cli.md") if words[0] == "driftline"}
    missing = [verb for verb in verbs(build()) if not any(words[: len(verb)] == verb for words in shown)]
    assert missing == []


def verbs(parser: Parser) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, child in children(parser).items():
        below = [(name, *verb) for verb in verbs(child)]
        found += below or [(name,)]
    return found


def children(parser: Parser) -> dict[str, Parser]:
    groups = [action.choices for action in parser._actions if type(action).__name__ == "_SubParsersAction"]
    return {name: child for choices in groups if isinstance(choices, dict) for name, child in choices.items()}


def test_the_tables_have_every_fix_screen_command_table_banner_and_correction() -> None:
    texts = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}
    for fix in fixes.FIXES:
        assert f"| `{fix.id}` | {fix.layer} |" in texts["README"]
        assert f"| `{fix.id}` | {fix.layer} |" in texts["fixes-and-syncs"]
    for tab in TABS:
        assert f"| `{tab.key}` | {tab.word.capitalize()} |" in texts["screens"]
    for command in COMMANDS:
        assert re.search(rf"`:{command.name}\b", texts["screens"]), command.name
    for table in TABLES:
        assert f"`{table}`" in texts["cli"]
    source = Path(link_health.__file__).read_text(encoding="utf-8")
    for banner in re.findall(r'Banner\("([A-Z ]+)"', source):
        assert f"| {banner} |" in texts["screens"]
    for correction in corrections.CORRECTIONS:
        assert f"`{correction.id}`" in texts["parity"]


def test_every_exit_code_stands_on_the_page_of_the_command_line() -> None:
    source = (ROOT / "console" / "errors.py").read_text(encoding="utf-8")
    codes = re.findall(r"^[A-Z_]+: Final = (\d+)$", source, re.MULTILINE)
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert len(codes) >= 9
    assert [code for code in codes if f"\n| {code} |" not in text] == []


# The architecture page


def test_every_room_stands_in_the_map() -> None:
    rooms = {
        str(path.parent.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")
    }
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([\w/]+)/`", text, re.MULTILINE))
    assert rows == rooms


def test_where_to_add_names_files_for_every_change() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8").partition("\n## Where do I add\n")[2]
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))
    wanted = ("metric", "fix", "screen", "verb", "importer", "sentinel rule", "console command", "table", "config key",
              "dialog")  # fmt: skip
    assert len(sections) >= len(wanted)
    for change in wanted:
        section = next(body for head, body in sections.items() if change in head)
        files = [path for path in re.findall(r"`([\w./-]+\.\w+)(?::\w+)?`", section) if "/" in path]
        assert len(files) >= 3, change
        assert [path for path in files if not (ROOT / path).exists()] == []
        assert any(path.startswith("tests/") for path in files), change


@each_page
def test_no_page_uses_words_that_say_too_little(page: Path) -> None:
    text = page.read_text(encoding="utf-8").lower()
    assert [word for word in BANNED if re.search(rf"\b{word}\b", text)] == []
