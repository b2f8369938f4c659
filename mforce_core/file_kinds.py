"""What a file really is, by its first bytes: for the sentence that says why it cannot be read here."""

from __future__ import annotations

from pathlib import Path

#: First bytes of a file and what it is then.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run 'git lfs pull' in its repository"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"PK\x03\x04", "a ZIP archive, as PyTorch pickles and .npz files are"),
    (b"\x80\x02", "a Python pickle, which can run code when it is opened"),
    (b"\x80\x04", "a Python pickle, which can run code when it is opened"),
    (b"%PDF", "a PDF document"),
    (b"ply\n", "a PLY point cloud"),
    (b"ply\r\n", "a PLY point cloud"),
)
_WEB_PAGE = (b"<!doctype html", b"<html")


def what_is(path: Path) -> str | None:
    """A phrase that names the kind of a file by its content, such as "a GGUF file"; None for an unknown kind."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    if not start:
        return "an empty file"
    if start.lstrip().lower().startswith(_WEB_PAGE):
        return "a web page, perhaps the error page of a failed download"
    if start[4:12] == b"ftypavif":
        return "an AVIF picture"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP picture"
    return next((kind for bytes_, kind in _BEGINNINGS if start.startswith(bytes_)), None)
