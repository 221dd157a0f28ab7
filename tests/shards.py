"""Made-up alignments in files of several kinds, and shards of them, for the tests of training."""

import gzip
import lzma
import tarfile

from made_up import a3m, write_folder

from modeling_msa import pack_alignments


def pack(source, output, format="parquet", **kwargs):
    return pack_alignments(source, output, format, progress=False, **kwargs)


def tar_of(path, files):
    with tarfile.open(path, "w") as tar:
        for file in files:
            tar.add(file, f"families/{file.name}")
    return path


def several_formats(folder):
    """Write eight alignments in files of several kinds; return the folder and, for four, sequences and query."""
    write_folder(folder, 4)
    (folder / "f4.b.a3m").write_text(a3m(["mKV--Lc", "RVAGL", "R-AGI"]))
    (folder / "f5.a3m.gz").write_bytes(gzip.compress(a3m(["M-K", "MaRK"]).encode()))
    (folder / "f6.fasta.xz").write_bytes(lzma.compress(a3m(["mk.", "MRV"]).encode()))
    (folder / "f7.sto").write_text("# STOCKHOLM 1.0\nq MK.V\nr MRAV\n//\n")
    return folder, {
        "f4.b": (["KV--L", "RVAGL", "R-AGI"], "MKVLC"),
        "f5": (["M-K", "MRK"], "MK"),
        "f6": (["MK-", "MRV"], "MK"),
        "f7": (["MK-V", "MRAV"], "MKV"),
    }
