# SPDX-License-Identifier: MIT
"""Encrypted qcow2 images, LUKS and AES, beside the real tools and in both directions."""

import pytest
from tools import OURS, THEIRS, run

SECRET = ["--object", "secret,id=s,data=passphrase"]
LUKS = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
AES = "encrypt.format=aes,encrypt.key-secret=s"


def ok(tool, args, cwd):
    result = run([tool, *args], cwd)
    assert result.returncode == 0, f"{tool} {args}: {result.stdout}{result.stderr}"
    return result.stdout


def image(name="x", more=""):
    return ["--image-opts", f"driver=qcow2,encrypt.key-secret=s,file.filename={name}{more}"]


def commands(*texts):
    return [word for text in texts for word in ("-c", text)]


KINDS = {
    "luks": LUKS,
    "aes": AES,
    "luks-512": LUKS + ",cluster_size=512",
    "luks-2M": LUKS + ",cluster_size=2M",
    "luks-v2": LUKS + ",compat=0.10",
    "aes-v2-4k": AES + ",compat=0.10,cluster_size=4k",
    "luks-cbc-essiv": LUKS + ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
    "luks-subclusters": LUKS + ",extended_l2=on",
    "aes-subclusters": AES + ",extended_l2=on,cluster_size=16k",
    "luks-lazy": LUKS + ",lazy_refcounts=on,refcount_bits=1",
    "luks-data-file": LUKS + ",data_file=data",
}


# qemu-img times key derivations for a second or two before it makes a LUKS image: it makes some of them.
@pytest.mark.parametrize("maker,kind", [("ours", kind) for kind in KINDS] +
                         [("theirs", kind) for kind in ("luks", "luks-subclusters", "luks-data-file", "aes", "aes-v2-4k")])
def test_both_read_what_either_made_and_wrote(tmp_path, kind, maker):
    img = OURS["img"] if maker == "ours" else THEIRS["img"]
    first, second = (OURS["io"], THEIRS["io"]) if maker == "ours" else (THEIRS["io"], OURS["io"])
    ok(img, ["create", "-q", *SECRET, "-f", "qcow2", "-o", KINDS[kind], "x", "3M"], tmp_path)
    written = ok(first, [*SECRET, *commands("write -P 1 64k 200k", "write -P 2 1000 70000", "write -z 100k 40k",
                                            "discard 128k 64k"), *image()], tmp_path)
    assert "error" not in written.lower()
    reads = commands("read -P 2 1000 70000", "read -P 0 100k 40k", "read -P 0 0 1000", "read -P 1 200k 60k",
                     "read -P 0 1M 1M")
    assert "failed" not in ok(second, [*SECRET, *reads, *image()], tmp_path)
    ok(second, [*SECRET, *commands("write -P 3 80k 10000", "write -P 4 2M 3000", "write -z 200k 4k"), *image()], tmp_path)
    reads = commands("read -P 3 80k 10000", "read -P 4 2M 3000", "read -P 0 200k 4k", "read -P 2 1000 70000")
    assert "failed" not in ok(first, [*SECRET, *reads, *image()], tmp_path)
    ok(THEIRS["img"], ["check", *SECRET, *image()], tmp_path)
    ok(OURS["img"], ["check", "x"], tmp_path)


@pytest.mark.parametrize("options", ["encrypt.key-secret=s", "encrypt.format=aes", "encrypt.format=luks", "encryption=on",
                                     AES + ",encrypt.cipher-alg=aes-256", "encrypt.format=rot13,encrypt.key-secret=s",
                                     "encryption=on," + LUKS, "encryption=off,encrypt.key-secret=s",
                                     "encrypt.format=aes,encrypt.key-secret=nobody", LUKS + ",encrypt.cipher-alg=des",
                                     LUKS + ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1"])
def test_create_refuses_what_the_real_tool_refuses(twin, options):
    assert twin.same("img", "create", "-q", *SECRET, "-f", "qcow2", "-o", options, "x", "1M").returncode == 1


def test_the_older_option_means_aes(twin):
    twin.same("img", "create", *SECRET, "-f", "qcow2", "-o", "encryption=on,encrypt.key-secret=s", "x", "1M")
    twin.same("img", "info", "x")
    twin.same("img", "info", "--output=json", "x", json_output=True, ignore=["actual-size"])


@pytest.mark.parametrize("form", ["human", "json"])
def test_info_needs_no_key_and_tells_the_same(tmp_path, form):
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", LUKS, "x", "1M"], tmp_path)
    assert ok(OURS["img"], ["info", "--output", form, "x"], tmp_path) == \
        ok(THEIRS["img"], ["info", "--output", form, "x"], tmp_path)


def test_info_tells_of_a_data_file_before_the_encryption(twin):
    twin.make(*SECRET, "-f", "qcow2", "-o", AES + ",data_file=data", "x", "1M")
    twin.same("img", "info", "x")


@pytest.mark.parametrize("options", [LUKS, AES])
def test_without_the_key_nothing_is_opened(twin, options):
    twin.make(*SECRET, "-f", "qcow2", "-o", options, "x", "1M")
    twin.same("io", *commands("read 0 512"), "x")
    twin.same("img", "map", "x")
    twin.same("img", "compare", "x", "x")
    twin.same("io", *commands("read 0 512"), *image())
    twin.same("io", *SECRET, *commands("read 0 512"), *image(more=",encrypt.format=" + ("aes" if options == LUKS else "luks")))


def test_a_wrong_passphrase_is_refused_and_changes_nothing(twin):
    twin.make(*SECRET, "-f", "qcow2", "-o", LUKS, "x", "1M")
    before = (twin.ours / "x").read_bytes()
    twin.same("io", "--object", "secret,id=s,data=wrong", *commands("write 0 512"), *image())
    assert (twin.ours / "x").read_bytes() == before


def test_an_encryption_format_for_a_plain_image_is_refused(twin):
    twin.make("-f", "qcow2", "x", "1M")
    twin.same("io", *SECRET, *commands("read 0 512"), *image(more=",encrypt.format=luks"))
    twin.same("io", *SECRET, *commands("read 0 512"), *image())


def test_map_and_measure_do_as_theirs(twin):
    twin.make(*SECRET, "-f", "qcow2", "-o", LUKS, "x", "1M")
    for directory, io in ((twin.ours, OURS["io"]), (twin.theirs, THEIRS["io"])):
        ok(io, [*SECRET, *commands("write 64k 64k", "write -z 256k 64k"), *image()], directory)
    twin.same("img", "map", "--output=json", *SECRET, *image())
    twin.same("img", "map", *SECRET, *image())
    twin.same("img", "measure", *SECRET, "-O", "qcow2", "-o", LUKS, "--size", "1G")
    twin.same("img", "measure", *SECRET, "-O", "qcow2", "-o", AES, "--size", "1G")
    twin.same("img", "measure", "-O", "qcow2", "-o", "encrypt.format=luks", "--size", "1G")


def test_backing_files_may_be_encrypted(tmp_path):
    ok(THEIRS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", LUKS, "base", "1M"], tmp_path)
    ok(THEIRS["io"], [*SECRET, *commands("write -P 7 0 1M"), *image("base")], tmp_path)
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", AES, "-b", "base", "-F", "qcow2", "-u", "x", "1M"], tmp_path)
    chain = image(more=",backing.driver=qcow2,backing.encrypt.key-secret=s,backing.file.filename=base")
    out = ok(OURS["io"], [*SECRET, *commands("write -P 8 1000 3000", "read -P 7 0 1000", "read -P 7 64k 64k"), *chain], tmp_path)
    out += ok(THEIRS["io"], [*SECRET, *commands("read -P 7 0 1000", "read -P 8 1000 3000", "read -P 7 4000 100k"), *chain], tmp_path)
    assert "failed" not in out


def test_convert_encrypts_and_decrypts(tmp_path):
    ok(THEIRS["img"], ["create", "-q", "-f", "raw", "plain", "3M"], tmp_path)
    ok(THEIRS["io"], ["-f", "raw", *commands("write -P 5 64k 300k", "write -P 6 2M 1k"), "plain"], tmp_path)
    for options in (LUKS, AES):
        ok(OURS["img"], ["convert", *SECRET, "-O", "qcow2", "-o", options, "plain", "x"], tmp_path)
        ok(THEIRS["img"], ["convert", *SECRET, *image(), "-O", "raw", "back"], tmp_path)
        ok(OURS["img"], ["convert", *SECRET, *image(), "-O", "raw", "back2"], tmp_path)
        plain = (tmp_path / "plain").read_bytes()
        assert (tmp_path / "back").read_bytes() == plain
        assert (tmp_path / "back2").read_bytes() == plain
        assert b"\x05" * 16 not in (tmp_path / "x").read_bytes()


def test_compression_and_encryption_do_not_go_together(twin):
    twin.make("-f", "raw", "plain", "1M")
    twin.same("img", "convert", "-c", *SECRET, "-O", "qcow2", "-o", LUKS, "plain", "x")


@pytest.mark.parametrize("kind", [LUKS, AES + ",extended_l2=on"])
def test_preallocated_space_reads_as_zeroes(tmp_path, kind):
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", kind + ",preallocation=metadata", "x", "1M"], tmp_path)
    reads = [*SECRET, *commands("read -P 0 0 1M", "write -P 3 1000 500", "read -P 0 0 1000", "read -P 3 1000 500",
                                "read -P 0 1500 64k"), *image()]
    for io in (OURS["io"], THEIRS["io"]):
        assert "failed" not in ok(io, reads[:2] + commands("read -P 0 256k 512k") + image(), tmp_path)
    assert "failed" not in ok(OURS["io"], reads, tmp_path)
    ok(THEIRS["img"], ["check", *SECRET, *image()], tmp_path)


def test_resize_keeps_zeroes_behind_the_old_end(tmp_path):
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", LUKS, "x", "1000k"], tmp_path)
    ok(OURS["io"], [*SECRET, *commands("write -P 3 0 1000k"), *image()], tmp_path)
    ok(OURS["img"], ["resize", "-q", *SECRET, *image(), "2M"], tmp_path)
    ok(OURS["img"], ["resize", "-q", "--preallocation=metadata", *SECRET, *image(), "3M"], tmp_path)
    for io in (OURS["io"], THEIRS["io"]):
        out = ok(io, [*SECRET, *commands("read -P 3 0 1000k", f"read -P 0 1000k {3072 - 1000}k"), *image()], tmp_path)
        assert "failed" not in out
    ok(THEIRS["img"], ["check", *SECRET, *image()], tmp_path)


@pytest.mark.parametrize("at,value", [(4, (8).to_bytes(4, "big")), (8, bytes(8)), (8, (1 << 40).to_bytes(8, "big")),
                                      (8, (1).to_bytes(8, "big")), (16, bytes(8)), (16, (4096).to_bytes(8, "big")),
                                      (16, b"\xff" * 8)])
def test_a_repair_never_frees_the_key_slots(tmp_path, at, value):
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "qcow2", "-o", LUKS, "x", "3M"], tmp_path)
    bytes_ = bytearray((tmp_path / "x").read_bytes())
    extension = bytes_.index(b"\x05\x37\xbe\x77")
    bytes_[extension + at:extension + at + len(value)] = value
    (tmp_path / "x").write_bytes(bytes_)
    result = run([OURS["img"], "check", "-r", "all", "x"], tmp_path)
    assert result.returncode != 0 and result.stderr
    assert (tmp_path / "x").read_bytes() == bytes_
