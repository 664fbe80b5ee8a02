"""What an index holds, and which of the versions in its folder is in force."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.files import read_json, write_json

FORMAT = 1
CATALOGUE = "index.json"
DEFAULT_FACTORY = "Flat"


@dataclass(frozen=True)
class Catalogue:
    """What `index.json` says.

    Args:
        version: the folder inside the index that is in force.
        factory: FAISS's description of the index.
        model: digest of the model whose vectors these are.
        dimension: D.
        counts: number of vectors by kind.
        querybanks: by kind, the number of queries that its items were normalised with. Vectors of
            such a kind have one more number, which is multiplied by 1 for a query of the other
            kind and by 0 for one of the same kind.
    """

    version: int
    factory: str
    model: str
    dimension: int
    counts: dict[str, int]
    querybanks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Catalogue:
        """Reads the catalogue of an index.

        Raises:
            UserError: there is no index, or another version of this software wrote it.
        """
        path = folder / CATALOGUE
        if not path.is_file():
            raise UserError(f"{folder} is not an index: build one with the verb index")
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise UserError(f"{path} is not of format {FORMAT}: build the index again")
        try:
            return cls(**content)
        except TypeError:
            raise UserError(f"{path} is damaged: build the index again") from None

    def save(self, folder: Path) -> None:
        """Writes `index.json` atomically; from then on its version is in force."""
        write_json(folder / CATALOGUE, {"format": FORMAT, **asdict(self)})

    def check(self, kind: str, top: int) -> None:
        """Tells at once whether a query for the best `top` of `kind` can be answered.

        Raises:
            UserError: `top` is below 1, or the index does not hold `kind`.
        """
        if top < 1:
            raise UserError(f"the number of results must be at least 1, not {top}")
        if kind not in self.counts:
            raise UserError(f"the index holds no {kind}, only {', '.join(self.counts)}")
