"""The sources of encoded images, one file each."""

from repae.data.sources.folder import FolderConfig, FolderSource

__all__ = ["FolderConfig", "FolderSource"]
