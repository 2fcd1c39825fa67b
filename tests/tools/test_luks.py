# SPDX-License-Identifier: MIT
"""Encrypted images beside the real tools: LUKS by itself, and secrets on the command line."""

import base64
import hashlib
import itertools
import json
import re
import subprocess

import pytest
from tools import OURS, THEIRS, run

SECRET = ["--object", "secret,id=s,data=passphrase"]
FAST = "key-secret=s,iter-time=10"


def ok(tool, args, cwd):
    result = run([tool, *args], cwd)
    assert result.returncode == 0, f"{tool} {args}: {result.stdout}{result.stderr}"
    return result.stdout


def image(name, secret="s"):
    return ["--image-opts", f"driver=luks,key-secret={secret},file.filename={name}"]


def commands(*texts):
    return [word for text in texts for word in ("-c", text)]


COMBINATIONS = [
    ("", "default"),
    ("cipher-alg=aes-128", "aes-128-xts"),
    ("cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256", "aes-256-essiv"),
    ("cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5,hash-alg=md5", "aes-128-essiv-md5"),
    ("cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha1", "cbc-plain-sha1"),
    ("cipher-alg=aes-256,cipher-mode=ctr,hash-alg=sha512", "ctr-sha512"),
    ("cipher-mode=xts,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha384", "xts-essiv"),
    ("ivgen-hash-alg=sha512,hash-alg=sha224", "hash-without-essiv"),
    ("hash-alg=ripemd160", "ripemd160"),
    ("cipher-alg=serpent-256", "serpent-256-xts"),
    ("cipher-alg=serpent-128,cipher-mode=cbc", "serpent-128-cbc"),
    ("cipher-alg=twofish-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256", "twofish-256-essiv"),
    ("cipher-alg=twofish-128,cipher-mode=ecb", "twofish-128-ecb"),
    ("cipher-alg=cast5-128,cipher-mode=cbc", "cast5-cbc"),
    ("cipher-alg=cast5-128,cipher-mode=ctr", "cast5-ctr"),
]
BY_NETTLE = ("serpent", "twofish", "cast5")

ALGORITHMS = ["aes-128", "aes-192", "aes-256", "cast5-128", "serpent-128", "serpent-192", "serpent-256", "twofish-128",
              "twofish-192", "twofish-256"]
MODES = ["xts", "cbc", "ctr", "ecb"]
HASHES = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"]
VECTORS = ["plain", "plain64", "essiv,{p}ivgen-hash-alg=md5", "essiv,{p}ivgen-hash-alg=sha256"]
FORMATS = ["luks", "qcow2"]


def goes_together(cell):
    algorithm, mode, _, vector, _ = cell
    if mode == "xts" and algorithm.startswith("cast5"):
        return False
    if mode != "xts" and algorithm.endswith("192"):
        return False  # what qemu-img makes of it aborts: key material that is no multiple of a sector
    return "essiv" not in vector or not algorithm.endswith("192") and ("sha256" not in vector or "cast5" not in algorithm)


def pairs_of(cell):
    """A hash has to do with keys only, so the algorithm of the cipher is no matter to it."""
    return {(i, cell[i], j, cell[j]) for i in range(5) for j in range(i) if (j, i) != (0, 2)}


def pairwise_cover():
    """Cells so that all pairs of values that go together are in one of them."""
    cells = [c for c in itertools.product(ALGORITHMS, MODES, HASHES, VECTORS, FORMATS) if goes_together(c)]
    missing, cover = set().union(*map(pairs_of, cells)), []
    while missing:
        best = max(cells, key=lambda c: len(pairs_of(c) & missing))
        missing -= pairs_of(best)
        cover.append(best)
    return cover


def test_all_ciphers_modes_hashes_and_vectors_go_with_each_other(tmp_path):
    if without_nettle(tmp_path):
        pytest.skip("built without nettle")
    cells = pairwise_cover()
    assert len(cells) >= 30
    sessions = []
    for n, (algorithm, mode, hash_, vector, driver) in enumerate(cells):
        p = "encrypt." if driver == "qcow2" else ""
        vector = vector.format(p=p)
        options = f"{p}key-secret=s,{p}iter-time=1,{p}cipher-alg={algorithm},{p}cipher-mode={mode},{p}hash-alg={hash_}," \
            f"{p}ivgen-alg={vector}" + (",encrypt.format=luks" if p else "")
        ok(OURS["img"], ["create", "-q", *SECRET, "-f", driver, "-o", options, f"x{n}", "64k"], tmp_path)
        sessions.append(f"open -o driver={driver},{p}key-secret=s,file.filename=x{n}")

    def session(tools, *texts):
        words = [text for s in sessions for text in (s, *texts, "close")]
        result = run([tools["io"], *SECRET, *commands(*words)], tmp_path)
        said = result.stdout + result.stderr
        assert result.returncode == 0 and not re.search("fail|error|can't", said, re.I), said
    session(OURS, "write -P 1 0 64k")
    session(THEIRS, "read -P 1 0 64k", "write -P 2 5000 9000")
    session(OURS, "read -P 2 5000 9000", "read -P 1 0 5000")


# qemu-img times key derivations for a second or two before it makes an image: it makes some of them.
@pytest.mark.parametrize("maker,options", [("theirs", ""), ("theirs", COMBINATIONS[2][0])] + [("ours", c[0]) for c in COMBINATIONS],
                         ids=["theirs", "theirs-essiv"] + [c[1] for c in COMBINATIONS])
def test_both_read_what_either_made_and_wrote(tmp_path, options, maker):
    img = OURS["img"] if maker == "ours" else THEIRS["img"]
    first, second = (OURS["io"], THEIRS["io"]) if maker == "ours" else (THEIRS["io"], OURS["io"])
    create = ["create", "-q", *SECRET, "-f", "luks", "-o", f"{FAST},{options}".rstrip(","), "x", "1M"]
    if options.partition("=")[2].startswith(BY_NETTLE) and without_nettle(tmp_path):
        pytest.skip("built without nettle")
    ok(img, create, tmp_path)
    ok(first, [*SECRET, *commands("write -P 1 0 1M", "write -P 2 1000 70000"), *image("x")], tmp_path)
    ok(second, [*SECRET, *commands("read -P 1 0 1000", "read -P 2 1000 70000", "write -P 3 512k 4k"), *image("x")], tmp_path)
    ok(first, [*SECRET, *commands("read -P 3 512k 4k", "read -P 1 516k 508k"), *image("x")], tmp_path)


def without_nettle(directory):
    result = run([OURS["img"], "create", *SECRET, "-f", "luks", "-o", FAST + ",cipher-alg=serpent-256", "n", "1M"], directory)
    return "without nettle" in result.stderr


@pytest.mark.parametrize("options", ["cipher-alg=cast5-128,cipher-mode=xts", "cipher-alg=des", "cipher-mode=gcm",
                                     "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha1", "hash-alg=sm3",
                                     "key-secret=nobody", "unknown=1"])
def test_what_the_real_tool_refuses_is_refused(twin, options):
    twin.same("img", "create", "-q", *SECRET, "-f", "luks", "-o", f"{FAST},{options}", "x", "1M")


def test_create_announces_the_options_given(twin):
    twin.same("img", "create", *SECRET, "-f", "luks", "-o", FAST, "x", "1M")


def same_but_for_keys(text):
    text = re.sub(r"(uuid\"?: \"?)[0-9a-f-]+", r"\1UUID", text)
    return re.sub(r"((?:iters|master-key-iters)\"?: )\d+", r"\1N", text)


@pytest.mark.parametrize("form", ["human", "json"])
def test_info_needs_no_key_and_tells_the_same(tmp_path, form):
    ok(OURS["img"], ["create", "-q", *SECRET, "-f", "luks", "-o", FAST, "x", "1M"], tmp_path)
    ours = ok(OURS["img"], ["info", "--output", form, "x"], tmp_path)
    theirs = ok(THEIRS["img"], ["info", "--output", form, "x"], tmp_path)
    if form == "json":
        ours, theirs = json.loads(ours), json.loads(theirs)
    assert ours == theirs


def test_a_new_image_has_the_same_layout(twin):
    twin.same("img", "create", "-q", *SECRET, "-f", "luks", "-o", FAST, "x", "1M")
    ours, theirs = twin.both("img", "info", "--output=json", "x")
    assert same_but_for_keys(ours.stdout) == same_but_for_keys(theirs.stdout)
    assert (twin.ours / "x").stat().st_size == (twin.theirs / "x").stat().st_size


def test_without_its_key_or_with_a_wrong_one_an_image_is_not_opened(twin):
    twin.make(*SECRET, "-f", "luks", "-o", FAST, "x", "1M")
    wrong = ["--object", "secret,id=s,data=wrong"]
    for args in (["x"], ["-f", "luks", "x"], [*wrong, *image("x")], [*SECRET, *image("x", "nobody")]):
        twin.same("io", *commands("read 0 512"), *args)
        twin.same("img", "map", *args)


def test_map_measure_and_resize_do_as_theirs(twin):
    twin.make(*SECRET, "-f", "luks", "-o", FAST, "x", "1M")
    twin.same("img", "map", "--output=json", *SECRET, *image("x"))
    twin.same("img", "map", *SECRET, *image("x"))
    twin.same("img", "measure", "-O", "luks", "--size", "1G")
    for options in (FAST, FAST + ",cipher-alg=aes-128,cipher-mode=cbc"):
        twin.same("img", "measure", *SECRET, "-O", "luks", "-o", options, "--size", "1G")
    twin.same("img", "resize", *SECRET, *image("x"), "2M")
    assert (twin.ours / "x").stat().st_size == (twin.theirs / "x").stat().st_size
    twin.same("img", "resize", "--shrink", *SECRET, *image("x"), "512k")
    assert (twin.ours / "x").stat().st_size == (twin.theirs / "x").stat().st_size
    twin.same("img", "check", *SECRET, *image("x"))


def test_convert_encrypts_and_decrypts(tmp_path):
    ok(THEIRS["img"], ["create", "-q", "-f", "raw", "plain", "1M"], tmp_path)
    ok(THEIRS["io"], ["-f", "raw", *commands("write -P 5 64k 300k"), "plain"], tmp_path)
    ok(OURS["img"], ["convert", *SECRET, "-O", "luks", "-o", FAST, "plain", "x"], tmp_path)
    ok(THEIRS["img"], ["convert", *SECRET, "--image-opts", image("x")[1], "-O", "raw", "back"], tmp_path)
    ok(OURS["img"], ["convert", *SECRET, "--image-opts", image("x")[1], "-O", "raw", "back2"], tmp_path)
    plain = (tmp_path / "plain").read_bytes()
    assert (tmp_path / "back").read_bytes() == plain
    assert (tmp_path / "back2").read_bytes() == plain
    assert b"\x05" * 16 not in (tmp_path / "x").read_bytes()
    ok(OURS["img"], ["compare", *SECRET, "--image-opts", image("x")[1], "driver=raw,file.filename=plain"], tmp_path)


def test_dd_and_compare_take_secrets(twin):
    twin.make(*SECRET, "-f", "luks", "-o", FAST, "x", "1M")
    twin.same("img", "dd", *SECRET, "--image-opts", f"if={image('x')[1]}", "of=y", "-O", "raw", "bs=64k", "count=2")
    assert (twin.ours / "y").read_bytes() == (twin.theirs / "y").read_bytes()


# ---- --object ----


def encrypted(data, key, iv):
    return base64.b64encode(subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex()], input=data, capture_output=True,
        check=True).stdout).decode()


def test_secrets_come_from_files_and_in_base64_and_encrypted(twin):
    twin.make(*SECRET, "-f", "luks", "-o", FAST, "x", "1M")
    twin.write("pw", b"passphrase")
    text = base64.b64encode(b"passphrase").decode()
    key, iv = hashlib.sha256(b"master").digest(), bytes(range(16))
    master = f"secret,id=m,format=base64,data={base64.b64encode(key).decode()}"
    sealed = f"secret,id=s,keyid=m,data={encrypted(b'passphrase', key, iv)},iv={base64.b64encode(iv).decode()}"
    for objects in (["secret,id=s,file=pw"], [f"secret,id=s,format=base64,data={text}"], [master, sealed + ",format=base64"],
                    ["qom-type=secret,id=s,data=passphrase"],
                    ['{"qom-type": "secret", "id": "s", "data": "passphrase"}']):
        args = [word for text in objects for word in ("--object", text)]
        assert twin.same("io", *args, *commands("read 0 512"), *image("x")).returncode == 0


@pytest.mark.parametrize("text", ["secret,id=s", "secret,data=x", "secret,id=s,data=x,file=y", "secret,id=s,file=missing",
                                  "secret,id=s,data=x,format=hex", "secret,id=s,data=$$,format=base64", "nothing,id=s",
                                  "secret,id=s,data=x,keyid=m", "secret,id=s,data=x,unknown=1"])
def test_objects_that_make_no_sense_are_refused(twin, text):
    twin.make("-f", "raw", "x", "1M")
    twin.same("io", "--object", text, "-f", "raw", *commands("read 0 512"), "x")


def test_an_id_is_taken_once(twin):
    twin.make("-f", "raw", "x", "1M")
    twin.same("io", *SECRET, *SECRET, "-f", "raw", *commands("read 0 512"), "x")
