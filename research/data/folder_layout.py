"""Layout of an image folder: its splits, its classes, and the files that are passed over."""

import collections
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparring.data.checks import listed_some, not_found
from sparring.errors import UserError

_log = logging.getLogger("sparring")
SUFFIXES = (".png", ".jpg", ".jpeg")
# Names of a split's folder, in any case; of several present for one split the first is taken
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")

Found = list[tuple[Path, str]]  # image files with their classes


def find(path: str, source: str) -> dict[str, Found]:
    """Return the image files of a folder with their classes, by split.

    The splits are "train" and "test", or the one split "" of a folder that has no such folders. The
    class of an image is the first folder on the way to it, or "" if it lies in the split directly.
    Links are followed. What is passed over is said in the log.

    Raises:
        UserError: there is no such folder, a split has no image, or some lie beside class folders.
    """
    root = Path(path)
    if not root.is_dir():
        raise not_found(path, source, "folder")
    splits = _splits(root, source)
    found = {split: _files(folder, source) for split, folder in splits.items()}
    names = {name for files in found.values() for _, name in files}
    if "" in names and len(names) > 1:
        raise UserError(
            f"{source}: one of its splits has class folders, the other has none: give both or "
            "neither."
        )
    return found


def _splits(root: Path, source: str) -> dict[str, Path]:
    """Return the folder of each split, or the root as the split ""."""
    folders = {p.name.lower(): p for p in _entries(root, source) if p.is_dir()}
    train = next((folders[n] for n in TRAIN if n in folders), None)
    test = next((folders[n] for n in TEST if n in folders), None)
    if train is not None and test is not None:
        _name_what_is_beside((train, test), root, source)
        return {"train": train, "test": test}
    if train is not None and len(folders) == 1:
        _name_what_is_beside((train,), root, source)
        _log.warning(
            "%s has a folder %s and no test or val: data.test_fraction of %s is kept for testing.",
            source,
            train.name,
            train.name,
        )
        return {"": train}
    if test is not None and folders.keys() <= set(TEST):
        raise UserError(
            f"{source}: it has a folder {test.name} and none for training: call one of its folders "
            "train."
        )
    like_splits = [folders[n].name for n in (*TRAIN, *TEST) if n in folders]
    if like_splits:
        _log.warning(
            "%s: its folder %s is taken for a class; for splits, give it the folders train and "
            "test, with the classes in them.",
            source,
            like_splits[0],
        )
    return {"": root}


def _name_what_is_beside(splits: Sequence[Path], root: Path, source: str) -> None:
    others = [p for p in _entries(root, source) if p not in splits]
    left = [p.name for p in others if p.is_dir() or p.suffix.lower() in SUFFIXES]
    if left:
        _log.warning(
            "%s: left out, as they lie beside the folders of its splits, %s: %s.",
            source,
            " and ".join(p.name for p in splits),
            listed_some(left),
        )


def _files(root: Path, source: str) -> Found:
    """Return (file, class) of every image in a split's folder, in alphabetical order."""
    found: list[Path] = []
    others: list[Path] = []
    for file in _walk(root, source):
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        images = others if hidden or file.suffix.lower() not in SUFFIXES else found
        images.append(file)
    _name_what_is_passed_over(root, found, others, source)
    if not found:
        raise UserError(f"{source}: there is no {', '.join(SUFFIXES)} in {root}.")
    classes = [p.relative_to(root).parts[0] if p.parent != root else "" for p in found]
    if "" in classes and len(set(classes)) > 1:
        lone = found[classes.index("")]
        raise UserError(
            f"{source}: {lone.name} lies beside class folders: move it into one, or all images out "
            "of them."
        )
    return list(zip(found, classes, strict=True))


def _name_what_is_passed_over(
    root: Path, found: Sequence[Path], others: Sequence[Path], source: str
) -> None:
    """Say how many files are no images that are read, and which class folders have none."""
    kinds: collections.Counter[str] = collections.Counter()
    for file in others:
        suffix = file.suffix.lower()
        if any(part.startswith(".") for part in file.relative_to(root).parts):
            if suffix in SUFFIXES:
                kinds["hidden"] += 1
        elif file.is_symlink() and not file.exists():
            kinds["broken links"] += 1
        else:
            kinds[suffix or "without a suffix"] += 1
    if kinds:
        _log.warning(
            "%s: %d of %d files in %s are left out, as images are %s: %s. Convert what is needed "
            "to png.",
            source,
            kinds.total(),
            kinds.total() + len(found),
            root,
            ", ".join(SUFFIXES),
            ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        )
    full = {p.relative_to(root).parts[0] for p in found}
    empty = [p.name for p in _entries(root, source) if p.is_dir() and p.name not in full]
    if found and empty:
        _log.warning("%s: no class, as there is no image in it: %s.", source, listed_some(empty))


def _walk(folder: Path, source: str, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files below a folder in alphabetical order, through links.

    A link to a folder that it lies in is not followed.
    """
    real = folder.resolve()
    if real in above:
        _log.warning("%s: left out, as it is a link to a folder it lies in: %s.", source, folder)
        return
    for path in _listed(folder, source):
        if path.is_dir():
            yield from _walk(path, source, (*above, real))
        else:
            yield path


def _entries(folder: Path, source: str) -> list[Path]:
    return [p for p in _listed(folder, source) if not p.name.startswith(".")]


def _listed(folder: Path, source: str) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{source}: {folder} cannot be listed: {error.strerror}.") from error
