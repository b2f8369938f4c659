"""Tars that claim or hold more than they should, in every compression, read within bounds of memory and disk."""

import bz2
import gzip
import io
import lzma
import re
import subprocess
import sys
import tarfile
import textwrap

import pytest

from mforce.training.data import tar_members
from mforce.training.data.sample import Broken
from mforce.training.data.shards import TarShard

GIB = 1 << 30


def tar_of(files):
    """A tar of names and contents."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def header(name, claimed, kind=tarfile.REGTYPE):
    """The header of a member that claims a size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = claimed, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse_header(name, claimed):
    """The header of a member in the old GNU layout that is one hole of a size."""
    block = bytearray(header(name, 0, tarfile.GNUTYPE_SPARSE))
    block[345:] = bytes(len(block) - 345)
    block[386:398] = block[398:410] = b"%011o\0" % 0
    block[483:495] = b"\x80" + claimed.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_every_compression_gives_the_same_files(pack):
    files = [("a/0.txt", b"red"), ("a/0.png", bytes(range(256)) * 9), ("a/1.b.txt", b"")]
    assert list(tar_members.tar_members(io.BytesIO(pack(tar_of(files))))) == files


def test_what_is_no_file_and_what_is_webdatasets_own_is_passed_over():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for kind, name, target in (
            (tarfile.SYMTYPE, "0.png", "/etc/passwd"),
            (tarfile.LNKTYPE, "0.jpg", "../../etc/passwd"),
            (tarfile.DIRTYPE, "folder", ""),
            (tarfile.FIFOTYPE, "1.png", ""),
            (tarfile.REGTYPE, "__meta__/0.txt", ""),
            (tarfile.REGTYPE, "2.txt", ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    assert [member.name for member in tar_members.tar_members(io.BytesIO(content.getvalue()))] == ["2.txt"]


def test_names_that_lead_out_of_a_folder_are_names_only(tmp_path):
    (tmp_path / "in").mkdir()
    tar = tmp_path / "in" / "0.tar"
    tar.write_bytes(tar_of([("../../escaped.txt", b"x"), ("/tmp/absolute.txt", b"y")]))
    assert [record.key for record in TarShard(str(tar)).records()] == ["../../escaped", "/tmp/absolute"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "in"]


def test_whole_samples_before_a_member_that_is_too_large_are_given(tmp_path):
    tar = tmp_path / "0.tar"
    whole = tar_of([("0.txt", b"zero"), ("1.txt", b"one")])[: 4 * 512]
    tar.write_bytes(whole + header("2.png", 1 << 40))
    first, second = TarShard(str(tar)).records()
    assert first.key == "0"
    assert isinstance(second, Broken)
    assert "2.png claims 1,099,511,627,776 bytes" in second.reason


def test_a_sample_of_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(tar_members, "SAMPLE_BYTES", 4000)
    small = [(f"{number}.txt", bytes(1000)) for number in range(20)]
    assert len(list(tar_members.tar_members(io.BytesIO(tar_of(small))))) == 20
    large = [(f"0.{number}", bytes(1000)) for number in range(20)]
    with pytest.raises(ValueError, match="the files of 0 are more than 4,000 bytes"):
        list(tar_members.tar_members(io.BytesIO(tar_of(large))))


HOSTILE = {
    "a sparse member": lambda: sparse_header("0.png", 1 << 42) + bytes(1024),
    "a regular member": lambda: header("0.png", 1 << 42) + bytes(1024),
    "an extended header": lambda: _inflating(header("x", 64 * GIB, tarfile.XHDTYPE)),
    "a long name": lambda: _inflating(header("x", 64 * GIB, tarfile.GNUTYPE_LONGNAME)),
    "a member of zeros": lambda: _inflating(header("0.png", 64 * GIB)),
}


def _inflating(start):
    """A gzip file of a header and 8 GiB of zeros."""
    content = io.BytesIO()
    zeros = bytes(1 << 24)
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1) as packed:
        packed.write(start)
    member = gzip.compress(zeros, 1)
    return content.getvalue() + member * 512


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_claims_of_terabytes_cost_neither_memory_nor_disk(tmp_path):
    for kind, content in HOSTILE.items():
        (tmp_path / f"{kind}.tar.gz").write_bytes(content())
    script = """
        import resource, sys
        from mforce.training.data.shards import TarShard
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        for path in sys.argv[1:]:
            (broken,) = TarShard(path).records()
            print(broken.reason)
    """
    files = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reasons = done.stdout.splitlines()
    assert len(reasons) == len(HOSTILE)
    for reason in reasons:
        assert re.search(r"claims [0-9,]+ bytes, and|more than [0-9,]+ bytes lie between", reason)
    assert sorted(tmp_path.iterdir()) == files
