"""What the runtimes of an exported version need beside their graphs, and the digests of all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tf_dpce.errors import UserError, shorten
from tf_dpce.export.versions import MODEL_FILE, version_digest
from tf_dpce.files import OTHER_TYPE, from_json, read_json, sha256_file, write_json
from tf_dpce.preprocessing.status import Limits
from tf_dpce.runtimes.engines import ENGINES

FOLDER = "runtimes"
MANIFEST = "manifest.json"
WORDS = "words.txt"

IMAGE, TEXT = "image", "text"


@dataclass(frozen=True)
class RuntimeManifest:
    """What is done before the encoders, and the files of all runtimes.

    Attributes:
        model: the digest of the SavedModel beside it; embeddings of both may be compared.
        dimension: D, the numbers of an embedding.
        image_size: S, the side of the pixels that the image encoder takes.
        resize: how images become squares, "center_crop" or "stretch".
        max_bytes: the largest size of an image's file.
        max_pixels: the largest number of pixels of an image.
        max_length: T, the number of token positions.
        lowercase: whether captions are lower-cased.
        pieces: whether the words of `words.txt` are pieces of a caption's words.
        inferred: how many of the last words no training caption has.
        positions: how many positions must be computed if the last word is the 0th to Tth.
        precision: that of LiteRT's files, see `write.write_runtimes`.
        examples: how many training examples int8 was fitted to, by the encoder that took them.
        files: the SHA-256 of each file by its path in the folder.
    """

    model: str
    dimension: int
    image_size: int
    resize: str
    max_bytes: int
    max_pixels: int
    max_length: int
    lowercase: bool
    pieces: bool
    inferred: int
    positions: list[int]
    precision: str
    examples: dict[str, int]
    files: dict[str, str]

    @property
    def limits(self) -> Limits:
        """The limits of an image."""
        return Limits(self.max_bytes, self.max_pixels)

    def write(self, version: Path) -> None:
        """Writes it into the folder of an exported version."""
        write_json(version / FOLDER / MANIFEST, asdict(self))

    @classmethod
    def read(cls, version: Path, runtime: str) -> RuntimeManifest:
        """Reads the manifest of an exported version.

        Args:
            version: the folder of the version.
            runtime: the runtime that is needed.

        Raises:
            UserError: the version has no files of the runtime; or the manifest is damaged, names
                files that are not there, or belongs to another model than the version's.
        """
        path = version / FOLDER / MANIFEST
        if not path.is_file():
            raise _missing(version, runtime)
        try:
            manifest = from_json(cls, read_json(path))
        except OTHER_TYPE as error:
            raise damaged(path, f"is of another form ({shorten(str(error))})") from None
        if model_file(runtime, IMAGE) not in manifest.files:
            raise _missing(version, runtime)
        if (version / MODEL_FILE).is_file() and version_digest(version) != manifest.model:
            raise damaged(path, "belongs to another model than the SavedModel beside it")
        return manifest

    def checked(self, version: Path, name: str) -> Path:
        """Returns the path of a file, which is as it was when it was exported.

        Raises:
            UserError: it is missing or has changed.
        """
        path = version / FOLDER / name
        if name not in self.files or not path.is_file():
            raise damaged(path, "is missing")
        if sha256_file(path) != self.files[name]:
            raise damaged(path, f"is not the file that {MANIFEST} lists")
        return path


def model_file(runtime: str, kind: str) -> str:
    """Returns the path of the file of an encoder that is opened, within the folder."""
    return f"{runtime}/{kind}{ENGINES[runtime].suffixes[0]}"


def damaged(path: Path, what: str) -> UserError:
    """Returns what is said of a file that is not as it was exported."""
    return UserError("runtimes.damaged", f"{path} {what}: export the model again", path)


def _missing(version: Path, runtime: str) -> UserError:
    message = (
        f"{version} holds no model for the runtime {runtime}: give one that `export --format "
        f"{runtime}` wrote, or leave --runtime out"
    )
    return UserError("runtimes.missing", message, version)
