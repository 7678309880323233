"""Finds the recordings that words name: recordings, folders of recordings, globs, and lists in text files."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from training.recordings.notes import LABELS_NOTE, recording_name, sidecar_of

__all__ = ["find_recordings", "label_bags", "outputs_of", "refuse_same_output"]

_STORAGE = (".mcap", ".db3", ".zstd")
_NAMED = 5  # missing recordings in one error text


def find_recordings(words: Sequence[str | Path]) -> list[Path]:
    """The recordings that words name, each once, in the order of the words; within a folder or glob, sorted.

    Args:
        words: a recording (a folder or a bare file), a folder with recordings in it at any depth, a glob, which may
            hold `**`, or `@FILE`: a text file with one of these a line, and comments after `#`. Label bags among
            several recordings are left out. A word that names nothing is kept, for the command to refuse by its name.
    Raises:
        ValueError: a list cannot be read or names a recording that is missing, a glob matches no recording, there is
            none at all, or a recording is named twice, also by a symbolic link.
    """
    found: list[Path] = []
    for word in map(str, words):
        found += _listed(Path(word[1:])) if word.startswith("@") else _named(word)
    if len(found) > 1:
        found = [path for path in found if not (path / LABELS_NOTE).is_file()]
    if not found:
        raise ValueError(f"{' '.join(map(str, words))}: names no recording")
    _refuse_repeated(found)
    return found


def label_bags(bags: Sequence[Path], given: Sequence[Path]) -> list[Path | None]:
    """The label bag of each recording that `--labels` names; None where it names none.

    Args:
        bags: the recordings.
        given: one label bag for each recording, in the same order; or one folder that holds NAME_labels for each.
    Raises:
        ValueError: their number is another one, or the folder lacks label bags.
    """
    if not given:
        return [None] * len(bags)
    if len(given) == 1 and given[0].is_dir() and not _is_recording(given[0]):
        made = [given[0] / sidecar_of(bag).name for bag in bags]
        missing = [path.name for path in made if not path.exists()]
        if missing:
            raise ValueError(f"--labels {given[0]}: holds no {_some(missing)}; make them with `renderocc label --out`")
        return list(made)
    if len(given) != len(bags):
        raise ValueError(
            f"--labels names {len(given)} sidecars for {len(bags)} recordings; give one for each, in the same order, "
            "or a folder that holds NAME_labels for each"
        )
    return list(given)


def outputs_of(
    bags: Sequence[Path],
    out: Path | None,
    default: Callable[[Path], Path],
    name: Callable[[Path], str] = recording_name,
) -> dict[Path, Path]:
    """{recording: the path of its result}, as `--out` says.

    Args:
        bags: the recordings.
        out: the result of a single recording, or the folder of the results of several; None for the default.
        default: the path of a recording's result without `out`.
        name: that of a recording's result in the folder.
    Raises:
        ValueError: two have the same path.
    """
    if out is None:
        outputs = {bag: default(bag) for bag in bags}
    else:
        outputs = {bag: out / name(bag) if len(bags) > 1 else out for bag in bags}
    refuse_same_output(outputs)
    return outputs


def refuse_same_output(outputs: Mapping[Path, Path]) -> None:
    """Refuse recordings whose results would have the same path.

    Args:
        outputs: {recording: the path of its result}.
    Raises:
        ValueError: two have the same.
    """
    by_output: dict[Path, list[Path]] = {}
    for bag, out in outputs.items():
        by_output.setdefault(out, []).append(bag)
    for out, bags in by_output.items():
        if len(bags) > 1:
            name, both = recording_name(bags[0]), " and ".join(map(str, bags))
            raise ValueError(
                f"several recordings are called {name}: {both} would be written to {out}; rename their folders, or run "
                "the command for each with another --out"
            )


def _listed(file: Path) -> list[Path]:
    """What the lines of a text file name; paths are relative to the current folder."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: the list of recordings cannot be read: {error}") from None
    found: list[Path] = []
    missing: list[str] = []
    for number, line in enumerate(lines, 1):
        word = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not word:
            continue
        try:
            paths = _named(word)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
        if not paths[0].exists():
            missing.append(f"{word} (line {number})")
        found += paths
    if missing:
        raise ValueError(f"{file}: names recordings that do not exist: {_some(missing)}; correct the list")
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _named(word: str) -> list[Path]:
    path = Path(word)
    if path.exists() or not glob.has_magic(word):
        return _in_folder(path)
    matches = [Path(match) for match in sorted(glob.glob(word, recursive=True))]
    folders = dict.fromkeys(one for match in matches if match.is_dir() for one in _below(match))
    bare = [match for match in matches if match.suffix in (".mcap", ".db3") and match.is_file()]
    closed = {folder for folder in {file.parent for file in bare} if (folder / "metadata.yaml").is_file()} | {*folders}
    found = sorted([*folders, *(file for file in bare if file.parent not in closed)])
    if not found:
        raise ValueError(f"{word}: matches no recording")
    return found


def _in_folder(path: Path) -> list[Path]:
    """A recording itself; of another folder, the recordings in it, or the folder if there are none."""
    found = [path] if _is_recording(path) else list(_below(path))
    return found or [path]


def _below(folder: Path, above: Iterable[Path] = ()) -> Iterator[Path]:
    """The recordings in a folder at any depth, without label bags and hidden folders."""
    if not folder.is_dir():
        return
    real = folder.resolve()
    if real in above:  # a link to a folder above it
        return
    if _is_recording(folder):
        if not (folder / LABELS_NOTE).is_file():
            yield folder
        return
    for child in sorted(folder.iterdir()):
        if not child.name.startswith("."):
            yield from _below(child, (*above, real))


def _is_recording(path: Path) -> bool:
    """Whether a folder holds metadata.yaml or storage files. Without metadata.yaml the command says how to mend it."""
    if not path.is_dir():
        return False
    return (path / "metadata.yaml").is_file() or any(file.suffix in _STORAGE for file in path.iterdir())


def _refuse_repeated(found: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in found:
        real = path.resolve()
        for same in (real, real.parent) if real.is_file() else (real,):
            if same in seen:
                raise ValueError(f"the same recording twice: {seen[same]} and {path} are both {same}; name it once")
        seen[real] = path
