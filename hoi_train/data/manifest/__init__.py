"""The manifest of labelled clips: its table, its files, its checks, and the list of clips left out."""

from hoi_train.data.manifest.manifest import Manifest, read_manifest, write_manifest, written_manifest
from hoi_train.data.manifest.problems import ManifestError

__all__ = ["Manifest", "ManifestError", "read_manifest", "write_manifest", "written_manifest"]
