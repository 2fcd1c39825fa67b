# SPDX-License-Identifier: MIT
"""Key slots amended beside the real tool, for luks and for qcow2, and secrets named by json:."""

import json

import pytest
from tools import OURS, THEIRS, run

OBJECTS = [word for id, data in (("s", "passphrase"), ("n", "new"), ("w", "wrong"))
           for word in ("--object", f"secret,id={id},data={data}")]
LUKS_CREATE = "key-secret=s,iter-time=10"
DRIVERS = {"luks": ("", LUKS_CREATE),
           "qcow2": ("encrypt.", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")}


def image(driver, name="x", secret="s"):
    return ["--image-opts", f"driver={driver},{DRIVERS[driver][0]}key-secret={secret},file.filename={name}"]


def ok(tool, args, cwd):
    result = run([tool, *args], cwd)
    assert result.returncode == 0, f"{tool} {args}: {result.stdout}{result.stderr}"
    return result.stdout


def amend(twin, driver, values, *more, same=True):
    options = ",".join(DRIVERS[driver][0] + value for value in values.split(","))
    args = ["amend", *OBJECTS, *more, "-o", options, *image(driver)]
    return (twin.same if same else twin.both)("img", *args)


def slots(directory, driver):
    told = json.loads(ok(THEIRS["img"], ["info", "--output=json", "x"], directory))["format-specific"]["data"]
    return [slot["active"] for slot in (told["encrypt"] if driver == "qcow2" else told)["slots"]]


def opens(directory, driver, secret):
    """Whether it does, as both tools find."""
    found = {run([tools["io"], *OBJECTS, "-c", "read -P 5 64k 4k", *image(driver, secret=secret)], directory).returncode
             for tools in (OURS, THEIRS)}
    assert len(found) == 1
    return found == {0}


def make(twin, driver):
    twin.make(*OBJECTS, "-f", driver, "-o", DRIVERS[driver][1], "x", "1M")
    ok(THEIRS["io"], [*OBJECTS, "-c", "write -P 5 0 1M", *image(driver)], twin.theirs)
    twin.copy()


REFUSED = ["state=active", "state=foo,keyslot=1", "iter-time=10", "keyslot=0", "state=active,new-secret=none",
           "state=active,new-secret=n,old-secret=s", "state=active,new-secret=n,keyslot=8",
           "state=active,new-secret=n,keyslot=-1", "state=active,new-secret=n,keyslot=0",
           "state=active,new-secret=n,iter-time=x", "state=inactive", "state=inactive,new-secret=n", "state=inactive,old-secret=w",
           "state=inactive,iter-time=10,keyslot=0", "state=inactive,keyslot=8", "state=inactive,keyslot=5",
           "state=inactive,keyslot=0", "state=inactive,old-secret=s", "state=inactive,keyslot=0,old-secret=n",
           "state=inactive,keyslot=0,old-secret=s", "key-secret=s", "cipher-alg=aes-256", "no=1"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_real_tool_refuses_changes_nothing(twin, driver):
    make(twin, driver)
    before = (twin.ours / "x").read_bytes()
    for values in REFUSED:
        assert amend(twin, driver, values).returncode == 1, values
        assert (twin.ours / "x").read_bytes() == before, values


@pytest.mark.parametrize("driver", DRIVERS)
def test_keys_are_added_and_erased_as_by_the_real_tool(twin, driver):
    make(twin, driver)
    for values, more, active, known in [
            ("state=active,new-secret=n,iter-time=10", [], [0, 1], "sn"),
            ("state=active,new-secret=w,keyslot=5,iter-time=10", [], [0, 1, 5], "snw"),
            ("state=inactive,old-secret=n", [], [0, 5], "sw"),
            ("state=inactive,keyslot=5", [], [0], "s"),
            ("state=active,new-secret=n,keyslot=0,iter-time=10", ["--force"], [0], "n")]:
        assert amend(twin, driver, values, *more).returncode == 0
        assert slots(twin.ours, driver) == slots(twin.theirs, driver) == [i in active for i in range(8)]
        assert "".join(s for s in "snw" if opens(twin.ours, driver, s)) == known


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_last_key_goes_by_force_only(twin, driver):
    make(twin, driver)
    assert amend(twin, driver, "state=inactive,keyslot=5", "--force").returncode == 0
    assert opens(twin.ours, driver, "s")
    assert amend(twin, driver, "state=inactive,old-secret=s", "--force").returncode == 0
    assert slots(twin.ours, driver) == [False] * 8
    assert not opens(twin.ours, driver, "s")


def test_images_without_key_slots_have_none_to_amend(twin):
    twin.make(*OBJECTS, "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", "x", "1M")
    before = (twin.ours / "x").read_bytes()
    assert amend(twin, "qcow2", "state=active,new-secret=n").returncode == 1
    assert (twin.ours / "x").read_bytes() == before


def test_amend_help_is_the_same(twin):
    twin.same("img", "amend", "-f", "luks", "-o", "help")
    twin.same("img", "amend", "-f", "qcow2", "-o", "help")


@pytest.mark.parametrize("encryption", ["luks", "aes"])
def test_version_2_keeps_zeroes_of_an_encrypted_image(tmp_path, encryption):
    """It has no zero flag: what becomes data reads as zeroes, in a snapshot and above a backing file, too."""
    options = f"encrypt.format={encryption},encrypt.key-secret=s" + (",encrypt.iter-time=10" if encryption == "luks" else "")
    ok(OURS["img"], ["create", "-q", "-f", "raw", "base", "1M"], tmp_path)
    ok(OURS["io"], ["-f", "raw", "-c", "write -P 9 0 1M", "base"], tmp_path)
    ok(OURS["img"], ["create", "-q", *OBJECTS, "-f", "qcow2", "-o", options, "-b", "base", "-F", "raw", "x"], tmp_path)

    def io(*commands):
        return ok(OURS["io"], [*OBJECTS, *(word for c in commands for word in ("-c", c)), *image("qcow2")], tmp_path)
    io("write -P 1 0 256k", "write -z 64k 64k", "write -z 512k 128k")
    ok(OURS["img"], ["snapshot", *OBJECTS, "-c", "one", *image("qcow2")], tmp_path)
    io("write -z 128k 64k", "write -P 2 640k 64k", "write -z 640k 64k")
    ok(OURS["img"], ["amend", *OBJECTS, "-o", "compat=0.10", *image("qcow2")], tmp_path)

    def reads(*expected):
        for tools in (OURS, THEIRS):
            out = ok(tools["io"], [*OBJECTS, *(word for c in expected for word in ("-c", f"read -P {c}")), *image("qcow2")],
                     tmp_path)
            assert "failed" not in out, out
    reads("1 0 64k", "0 64k 128k", "1 192k 64k", "9 256k 256k", "0 512k 192k", "9 704k 320k")
    ok(THEIRS["img"], ["check", *OBJECTS, *image("qcow2")], tmp_path)
    ok(OURS["img"], ["snapshot", *OBJECTS, "-a", "one", *image("qcow2")], tmp_path)
    reads("1 0 64k", "0 64k 64k", "1 128k 128k", "9 256k 256k", "0 512k 128k", "9 640k 384k")
    ok(THEIRS["img"], ["check", *OBJECTS, *image("qcow2")], tmp_path)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_file_name_tells_the_secret(twin, driver):
    make(twin, driver)
    names = [json.loads(result.stdout)["filename"] for result in
             twin.both("img", "info", "--output=json", *OBJECTS, *image(driver))]
    assert [name.partition(":")[0] for name in names] == ["json", "json"]
    told = [json.loads(name[5:]) for name in names]
    secrets = [name.pop("encrypt.key-secret", None) or name.pop("encrypt", {}).get("key-secret") for name in told]
    assert told[0] == told[1] and secrets[0] == secrets[1]
    assert driver == "luks" or secrets[0] == "s"
    twin.same("io", *OBJECTS, "-c", "read -P 5 0 4k", names[0])


def test_backing_files_have_a_secret_of_their_own(twin):
    make(twin, "qcow2")
    base = json.dumps({"driver": "qcow2", "encrypt.key-secret": "s", "file.filename": "x"})
    overlay = "encrypt.format=aes,encrypt.key-secret=n"
    twin.same("img", "create", "-q", *OBJECTS, "-f", "qcow2", "-o", overlay, "-b", f"json:{base}", "-F", "qcow2", "y", "1M")
    twin.same("img", "info", "--output=json", "y", json_output=True, ignore=["actual-size"])
    commands = [word for c in ("read -P 5 64k 900k", "write -P 6 1000 5000", "read -P 5 0 1000", "read -P 6 1000 5000", "read -P 5 6000 9000")
                for word in ("-c", c)]
    for tools, directory in ((OURS, twin.ours), (THEIRS, twin.ours), (OURS, twin.theirs)):
        assert "failed" not in ok(tools["io"], [*OBJECTS, *commands, *image("qcow2", "y", "n")], directory)
    twin.same("io", *OBJECTS[:4], "-c", "read 0 512", *image("qcow2", "y", "n"))
    twin.same("io", *OBJECTS[2:4], "-c", "read 0 512", *image("qcow2", "y", "n"))
