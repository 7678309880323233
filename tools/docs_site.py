"""What `mkdocs.yml` leaves to code: pages from files outside of docs/, and a reference page for each folder of modules.

The README is the site's home, and the texts of the repository's root are pages of it, so that no text stands twice.
Links between them are written for people who read the files where they lie; here they become links within the site.
What they name and is no page, configuration for example, is copied into the site as it is.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("renderocc_model", "training", "renderocc_ros")
# Files outside of docs/ that are pages, and where they lie in the site.
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "SECURITY.md": "SECURITY.md"}
CHANGES = "CHANGELOG.rst"
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")  # the path of a relative Markdown link


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference's pages into the navigation."""
    sections = [{package: reference_pages(package)} for package in PACKAGES]
    config.nav = [{"Reference": sections} if "Reference" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere or are made here, and the files that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=within_site((ROOT / source).read_text(), source)))
    files.append(File.generated(config, "CHANGELOG.md", content=markdown_changes((ROOT / CHANGES).read_text())))
    for package in PACKAGES:
        for page in reference_pages(package):
            files.append(File.generated(config, page, content=reference_text(page)))
    for source in linked_files():
        files.append(File.generated(config, f"files/{source}", abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page in docs/ that lead out of docs/, as links within the site."""
    source = Path(page.file.abs_src_path or "")
    return (
        within_site(markdown, source.relative_to(ROOT).as_posix()) if source.is_relative_to(ROOT / "docs") else markdown
    )


def within_site(markdown: str, source: str) -> str:
    """The text of a file of the repository, its relative links as from where its page lies in the site."""
    page = place_in_site(source)

    def moved(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return posixpath.relpath(place_in_site(target), posixpath.dirname(page) or ".")

    return _LINK.sub(moved, markdown)


def place_in_site(source: str) -> str:
    """Where a file of the repository lies in the site."""
    if source.startswith("docs/"):
        inside = source.removeprefix("docs/")
        return f"files/{source}" if inside.endswith((".json", ".yaml")) else inside
    return PAGES.get(source, "CHANGELOG.md" if source == CHANGES else f"files/{source}")


def linked_files() -> list[str]:
    """Files of the repository that are no pages, but named by links of some page."""
    found = set()
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in PAGES)]:
        folder = path.parent.relative_to(ROOT).as_posix()
        for match in _LINK.finditer(path.read_text()):
            target = posixpath.normpath(posixpath.join(folder, match[1]))
            if place_in_site(target).startswith("files/") and (ROOT / target).is_file():
                found.add(target)
    return sorted(found)


def markdown_changes(text: str) -> str:
    """The change log, whose form is that of ROS packages, as Markdown."""
    text = re.sub(r"\^+\n(.+)\n\^+\n", r"# \1\n", text)
    return re.sub(r"^(.+)\n-+$", r"## \1", text, flags=re.M).replace("``", "`")


def reference_pages(package: str) -> list[str]:
    """Pages of a package: one for each folder that has public names, and one for the modules beside them."""
    folders = sorted({path.parent.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")})
    top = [folder for folder in folders if folder.count("/") <= 1]
    return [f"reference/{folder}.md" for folder in top if modules(folder)]


def modules(folder: str) -> list[Path]:
    """Modules of a page that have public names: all in its folder and below, for a package those beside its folders."""
    paths = (ROOT / folder).rglob("*.py") if "/" in folder else (ROOT / folder).glob("*.py")
    return sorted(path for path in paths if public_names(path))


def public_names(path: Path) -> list[str]:
    """`__all__` of a module, as far as it is defined there."""
    tree = ast.parse(path.read_text())
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            if isinstance(node.value, ast.List):
                return [name for name in ast.literal_eval(node.value) if name in defined]
    return []


def reference_text(page: str) -> str:
    """A page that names what mkdocstrings fills in."""
    folder = page.removeprefix("reference/").removesuffix(".md")
    lines = [f"# {folder.replace('/', '.')}", "", first_words(ROOT / folder / "__init__.py"), ""]
    for path in modules(folder):
        module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        lines += [f"::: {module}", "    options:", f"      members: {public_names(path)}", ""]
    return "\n".join(lines)


def first_words(path: Path) -> str:
    """The first paragraph of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
