"""What the documents name is there: pages of the site, links, files, functions."""

import ast
import fnmatch
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(?:    [^\n]*|```.*?^```$)", re.M | re.S)  # examples, where brackets are no links


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return listed.stdout.splitlines()
    made = {"build", "install", "log", "site"}  # not under git: what commands leave
    names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return [name.as_posix() for name in names if not made & set(name.parts) and not name.parts[0].startswith(".venv")]


FILES = tracked_files()
DOCUMENTS = [name for name in FILES if name.endswith(".md")]


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.+)$", CODE.sub("", path.read_text()), re.M)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s", "-", heading) for heading in words}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_lead_to_files_and_headings_that_exist(name):
    for target in LINK.findall(CODE.sub("", (ROOT / name).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / name).parent / path if path else ROOT / name
        assert found.exists(), f"{name}: there is no {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name}: {target} names no heading of {found.name}"


def site() -> dict:
    class Loader(yaml.SafeLoader):
        pass

    return yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def pages(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [page for entry in entries for page in pages(entry)]


def test_the_site_has_every_page_of_its_navigation_and_leaves_no_document_out():
    named = pages(site()["nav"])
    elsewhere = {"index.md": "README.md", "CHANGELOG.md": "CHANGELOG.rst"}
    elsewhere |= {name: name for name in ("CONTRIBUTING.md", "SECURITY.md")}
    for page in named:
        if page != "reference/":
            source = ROOT / elsewhere[page] if page in elsewhere else ROOT / "docs" / page
            assert source.is_file(), f"mkdocs.yml names {page}"
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(named)


def test_what_the_site_is_made_of_is_pinned():
    lines = (ROOT / "requirements-docs.txt").read_text().splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]
    assert {"mkdocs-material", "mkdocstrings[python]"} <= {line.partition("==")[0] for line in wanted}
    assert all("==" in line for line in wanted)


FOLDERS = {parent.as_posix() for name in FILES for parent in Path(name).parents} - {"."}
PATH = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)*/?)`")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_of_the_source_tree_that_documents_name_exist(name):
    for path in PATH.findall(CODE.sub("", (ROOT / name).read_text())):
        first, slash, _ = path.partition("/")
        if path.endswith(".py"):  # also without its folder
            assert any(fnmatch.fnmatch(f"/{file}", f"*/{path}") for file in FILES), f"{name} names {path}"
        elif slash and first in FOLDERS:
            known = FOLDERS if path.endswith("/") else {*FOLDERS, *FILES}
            assert fnmatch.filter(known, path.rstrip("/")), f"{name} names {path}"


def test_the_readme_lists_the_folders_that_there_are():
    tree = (ROOT / "README.md").read_text().split("## Where things are")[1]
    listed, above = set(), ""
    for indent, names in re.findall(r"^    ( *)((?:\w+/ )+)", tree, re.M):
        above = "" if not indent else above
        listed |= {above + name.strip("/") for name in names.split()}
        above = names.split()[0] if not indent else above
    assert listed <= FOLDERS
    there = {folder for folder in FOLDERS if "/" not in folder and not folder.startswith(".")}
    assert there - listed <= {"docs", "resource"}  # named in the text above; what ament wants
    model = {folder for folder in FOLDERS if re.fullmatch(r"renderocc_model/\w+", folder)} - {"renderocc_model/weights"}
    assert model == {folder for folder in listed if folder.startswith("renderocc_model/")}


def test_training_lists_the_folders_that_there_are():
    text = ast.get_docstring(ast.parse((ROOT / "training" / "__init__.py").read_text()))
    listed = set(re.findall(r"\b(\w+)/: ", text))
    rooms = {Path(name).parent.name for name in FILES if re.fullmatch(r"training/.+/__init__\.py", name)}
    assert listed == rooms


GUIDES = ("CONTRIBUTING.md", "docs/architecture.md")


@pytest.mark.parametrize("name", GUIDES)
def test_guides_for_developers_name_files_that_exist(name):
    text = CODE.sub("", (ROOT / name).read_text())
    named = re.findall(r"`([\w./-]+(?:\.py|\.yaml|\.md|\.xml|\.toml|\.rst|/))`", text)
    assert len(named) > 10
    for path in named:
        if path.endswith("/"):
            assert any(f"/{file}".find(f"/{path}") >= 0 for file in FILES), f"{name} names {path}"
        else:
            assert any(f"/{file}".endswith(f"/{path}") for file in FILES), f"{name} names {path}"


@pytest.mark.parametrize("name", GUIDES)
def test_guides_for_developers_name_functions_where_they_are(name):
    found = 0
    for names, path in re.findall(
        r"((?:`[\w.]+`(?:, | and )?)+),? (?:in|of) `([\w./]+\.py)`", (ROOT / name).read_text()
    ):
        files = [file for file in FILES if f"/{file}".endswith(f"/{path}")]
        code = "\n".join((ROOT / file).read_text() for file in files)
        for dotted in re.findall(r"`([\w.]+)`", names):
            for part in dotted.split("."):
                assert re.search(rf"\b(?:def|class) {part}\b|^{part}\b.*=", code, re.M), f"{name}: {dotted} in {path}"
                found += 1
    assert found >= 4


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name in (*DOCUMENTS, ".ci/run", ".github/workflows/ci.yaml"):
        text = (ROOT / name).read_text()
        for words in re.findall(r"(?:^ {4}|`|run: )make ((?:[a-z][\w-]*)(?: [a-z][\w-]*)*)", text, re.M):
            for target in words.split():
                assert target in targets, f"{name} says: make {words}"


def test_the_workflow_gives_the_commands_of_ci():
    wanted = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]
    assert [step["run"] for step in jobs["test"]["steps"] if "run" in step] == wanted
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == "3.10" == supported_python()


def supported_python() -> str:
    return re.search(r'python_requires=">=([\d.]+)"', (ROOT / "setup.py").read_text())[1]


def test_the_site_builds_where_its_tools_are_installed(tmp_path):
    pytest.importorskip("mkdocs", reason="make docs installs it in an environment of its own")
    command = ["mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
