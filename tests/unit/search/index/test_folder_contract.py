"""An index in a folder answers what every index answers."""

from __future__ import annotations

from tests.unit.search.index_contract import D, IndexContract
from tf_dpce.search.index.folder import FolderIndex
from tf_dpce.search.index.manifest import IndexManifest, KindEntry
from tf_dpce.search.index.writer import writing


class TestFolderIndex(IndexContract):
    def build(self, folder, items, querybanks):
        place = folder / "index"
        place.mkdir()
        with writing(place, IndexManifest("m" * 64, D)) as writer:
            for kind, batches in items.items():
                if kind in querybanks:
                    file = writer.store_array(kind, querybanks[kind])
                    entry = KindEntry(querybank=file, queries=len(querybanks[kind]))
                    writer.set_entry(kind, entry)
                writer.add(kind, batches, whole=True)
            writer.commit()
        return FolderIndex(place)

    def reopen(self, folder):
        return FolderIndex(folder / "index")
