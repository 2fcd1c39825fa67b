# SPDX-License-Identifier: MIT
"""The installed library as its users see it: symbols, headers, binary interface, other languages, a project of its own."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADERS = sorted((ROOT / "include" / "bdrv").glob("*.h"))
ALONE = [header.name for header in HEADERS if header.name != "events.h"]  # that is a list, included by driver.h
CC = os.environ.get("CC", "cc")


def run(*argv, **kwargs):
    result = subprocess.run([str(word) for word in argv], capture_output=True, text=True, **kwargs)
    assert result.returncode == 0, f"{argv}\n{result.stdout}{result.stderr}"
    return result.stdout


def need(tool, package):
    """Skip the test if there is no such tool; in CI that is a failure."""
    if not shutil.which(tool):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"there is no {tool} (package {package})")


def environment(libdir):
    """To build and run programs that use the installed library, and the tools beside it."""
    prefix = next(parent for parent in libdir.parents if (parent / "include").is_dir())
    return {**os.environ, "PKG_CONFIG_PATH": str(libdir / "pkgconfig"), "LD_LIBRARY_PATH": str(libdir),
            "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}"}


# ---- symbols ----

def declarations(header):
    """(name, line) of each function that a header declares with BDRV_API."""
    lines = header.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("BDRV_API "):
            yield re.search(r"(\w+)\(", re.sub(r"\b(coroutine_fn|blocking_fn)\b", "", line)).group(1), number


def declared():
    return {name for header in HEADERS for name, _ in declarations(header)}


def test_exactly_the_declared_functions_are_exported(installed):
    libdir, _ = installed
    symbols = {line.split()[-1] for line in run("nm", "-D", "--defined-only", libdir / "libbdrv.so").splitlines()}
    unversioned = {name for name in symbols if "@@LIBBDRV_" not in name} - {"LIBBDRV_0"}
    assert not unversioned
    exported = {name.split("@")[0] for name in symbols} - {"LIBBDRV_0"}
    assert sorted(exported - declared()) == []
    assert sorted(declared() - exported) == []


def test_the_symbol_map_names_them_one_by_one():
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "block" / "libbdrv.map").read_text(), flags=re.S)
    named = re.findall(r"^\s+([^\s{}]+);", text, re.M)
    assert named.pop() == "*"  # what is local
    assert named == sorted(set(named))
    assert sorted(declared() ^ set(named)) == []


def test_every_public_function_is_documented():
    """By a comment on its line, in its paragraph, or one anywhere in the headers that names it with brackets."""
    comments = " ".join(re.findall(r"/\*.*?\*/", "\n".join(header.read_text() for header in HEADERS), re.S))
    undocumented = []
    for header in HEADERS:
        lines = header.read_text().splitlines()
        for name, number in declarations(header):
            first = last = number
            while lines[first - 1].strip():
                first -= 1
            while not lines[last].rstrip().endswith((";", "*/")):
                last += 1
            paragraph = "\n".join(lines[first:last + 1])
            if "/*" not in paragraph and f"{name}()" not in comments:
                undocumented.append(f"{header.name}: {name}")
    assert undocumented == []


def test_the_reference_has_every_public_name_and_nothing_undocumented(tmp_path):
    need("doxygen", "doxygen")
    done = subprocess.run([ROOT / "scripts/api-reference", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout + done.stderr == ""
    pages = "".join(page.read_text() for page in (tmp_path / "html").glob("*_8h.html"))
    named = set(re.findall(r">(\w+)</(?:a|b)>(?:&#160;|\s)*\(", pages))
    assert sorted(declared() - named) == []


# ---- headers ----

@pytest.mark.parametrize("suffix, compiler", [("c", [CC, "-std=c11"]), ("cc", ["g++", "-std=c++17", "-Wpedantic"])])
def test_every_public_header_compiles_alone(tmp_path, installed, suffix, compiler):
    _, flags = installed
    need(compiler[0], compiler[0])
    for header in ALONE:
        (tmp_path / f"{header}.{suffix}").write_text(f"#include <bdrv/{header}>\nint main(void) {{ return 0; }}\n")
    run(*compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *(f"{header}.{suffix}" for header in ALONE),
        *flags("--cflags"), cwd=tmp_path)


def test_a_cplusplus_program_uses_the_library(tmp_path, installed):
    libdir, flags = installed
    need("g++", "g++")
    (tmp_path / "use.cc").write_text("""
#include <bdrv/testing.h>
#include <cstdio>
int main() {
    BdrvTestStack *stack = bdrv_test_stack_new("qcow2(size=1M):blkdebug:simdisk");
    bdrv_test_write_pattern(stack, 0, 512, 7);
    bdrv_test_inject_event(stack, "write_aio", 1, ENOSPC);
    bdrv_test_assert_fails(blk_pwrite(stack->blk, 512, 1, "x", BDRV_REQ_FUA), ENOSPC);
    bdrv_test_power_loss(stack, 1);
    bdrv_test_assert_read(stack, 0, 1, "\\7");
    bdrv_test_assert_zero(stack, 4096, 512);
    bdrv_test_assert_ok(blk_flush(stack->blk));
    bdrv_test_assert_check_sound(stack);
    bdrv_test_stack_free(stack);
    BdrvGraph *graph = bdrv_graph_new();
    BlockBackend *disk = blk_open(graph, "null-co://", bdrv_options_parse("size=1M", nullptr, nullptr),
                                  BDRV_O_RDWR | BDRV_O_RESIZE, nullptr);
    char byte = 1;
    int ret = blk_pwrite(disk, 5, 1, &byte, BDRV_REQ_FUA | BDRV_REQ_UNCHANGED);
    std::printf("%lld %d\\n", (long long)blk_length(disk), ret);
    bool ok = blk_close(disk, nullptr);
    bdrv_graph_unref(graph);
    return !ok;
}
""")
    run("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "use.cc", "-o", "use", *flags("--cflags"), *flags("--libs"),
        cwd=tmp_path)
    assert run(tmp_path / "use", env=environment(libdir)) == "1048576 0\n"


# ---- binary interface ----

BASELINE = ROOT / "tests" / "abi" / "libbdrv.abi"
ABI_OPTIONS = ["--no-added-syms", "--headers-dir2", str(ROOT / "include" / "bdrv"), "--drop-private-types"]


def abidiff(library):
    return subprocess.run(["abidiff", *ABI_OPTIONS, str(BASELINE), str(library)], capture_output=True, text=True)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the baseline is of x86-64")
def test_the_binary_interface_is_that_of_the_baseline():
    """What was there stays as it was. If a change is meant, scripts/abi-baseline writes a new baseline."""
    need("abidiff", "abigail-tools")
    library = pathlib.Path(os.environ["BDRV_IMG"]).parents[2] / "libbdrv.so"
    sections = run("readelf", "-S", library)
    if ".debug_info" not in sections:
        pytest.skip("the library has no debugging information")
    result = abidiff(library)
    assert result.returncode & ~4 == 0, result.stdout + result.stderr  # 4: it differs, compatibly or not
    assert result.returncode == 0, result.stdout


# ---- other languages ----

def test_what_is_inline_has_a_function_of_its_own():
    """Other languages cannot call what is only in a header; <bdrv/testing.h> is for GTest, that is for C and C++."""
    inline = {name for header in HEADERS if header.name != "testing.h"
              for name in re.findall(r"^static inline [^;{]*?\b(\w+)\(", header.read_text(), re.M)}
    assert len(inline) >= 7
    assert sorted(f"{name}_sized" for name in inline if f"{name}_sized" not in declared()) == []


PYTHON = """
import ctypes, sys
lib = ctypes.CDLL("libbdrv.so.0")
for name in ("bdrv_graph_new", "blk_open", "bdrv_options_parse"):
    getattr(lib, name).restype = ctypes.c_void_p
lib.blk_open.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
for name in ("blk_pread", "blk_pwrite"):
    getattr(lib, name).argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int]
lib.blk_length.argtypes, lib.blk_length.restype = [ctypes.c_void_p], ctypes.c_int64
lib.blk_close.argtypes, lib.blk_close.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_bool
lib.blk_get_info_sized.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
lib.bdrv_graph_unref.argtypes = [ctypes.c_void_p]

class Error(ctypes.Structure):
    _fields_ = [("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p)]

class Info(ctypes.Structure):  # an early form of BdrvInfo
    _fields_ = [("cluster_size", ctypes.c_int64)]

graph = lib.bdrv_graph_new()
error = ctypes.POINTER(Error)()
assert not lib.blk_open(graph, b"nonexistent", None, 0, ctypes.byref(error))
print(error.contents.code, error.contents.message.decode())
disk = lib.blk_open(graph, sys.argv[1].encode(), None, 1, None)
data, back, info = ctypes.create_string_buffer(b"from Python", 512), ctypes.create_string_buffer(512), Info()
print(lib.blk_pwrite(disk, 4096, 512, data, 1), lib.blk_pread(disk, 4096, 512, back, 0), back.value.decode())
print(lib.blk_length(disk), lib.blk_get_info_sized(disk, ctypes.byref(info), ctypes.sizeof(info)), info.cluster_size)
print(lib.blk_close(disk, None))
lib.bdrv_graph_unref(graph)
"""


def test_python_uses_the_library_by_ctypes(tmp_path, installed):
    libdir, _ = installed
    env = environment(libdir)
    run("bdrv-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M", cwd=tmp_path, env=env)
    out = run(sys.executable, "-c", PYTHON, "disk.qcow2", cwd=tmp_path, env=env).splitlines()
    assert out[0].startswith("2 ") and "nonexistent" in out[0]
    assert out[1:] == ["0 0 from Python", "1048576 0 65536", "True"]
    assert "66 72 6f 6d" in run("qemu-io", "-r", "-c", "read -v 4096 16", "disk.qcow2", cwd=tmp_path)


# ---- a project of somebody else ----

@pytest.fixture(scope="module")
def project(tmp_path_factory, installed):
    """Built outside of the tree, with the installed library and what pkg-config says."""
    libdir, _ = installed
    directory = tmp_path_factory.mktemp("project")
    for path in (ROOT / "tests" / "installed").iterdir():
        shutil.copy(path, directory)
    env = environment(libdir)
    run("make", "-s", f"CC={CC}", cwd=directory, env=env)
    run("bdrv-img", "create", "-q", "-f", "qcow2", "base.qcow2", "16M", cwd=directory, env=env)
    run("bdrv-io", "-c", "write -P 0x62 0 64k", "base.qcow2", cwd=directory, env=env)
    run("bdrv-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", cwd=directory, env=env)
    return directory, env


def test_a_program_reads_by_blocking_calls(project):
    directory, env = project
    assert run("./blocking", "base.qcow2", cwd=directory, env=env) == f"qcow2: {'b' * 16} (0)\n"


def test_a_program_does_io_in_a_glib_main_loop(project, tmp_path):
    directory, env = project
    image = tmp_path / "disk.qcow2"
    run("bdrv-img", "create", "-q", "-f", "qcow2", image, "16M", env=env)
    assert run("./main_loop", image, cwd=directory, env=env) == "64 requests, 0 failed\n"
    run("qemu-img", "check", "-q", image)


def test_a_program_has_queues_in_two_threads(project, tmp_path):
    directory, env = project
    image = tmp_path / "disk.qcow2"
    run("bdrv-img", "create", "-q", "-f", "qcow2", image, "16M", env=env)
    assert run("./two_queues", image, cwd=directory, env=env) == "512 requests, 0 failed\n" * 2
    run("qemu-img", "check", "-q", image)


def test_a_program_refuses_a_backing_file(project):
    directory, env = project
    refused, opened = run("./gate", "top.qcow2", ".", cwd=directory, env=env).splitlines()
    assert "refused 'base.qcow2' (qcow2)" in refused
    assert opened == "opened"


def test_a_program_loads_a_driver_of_its_own_from_a_module(project, tmp_path):
    directory, env = project
    (tmp_path / "file").write_bytes(bytes(255 - byte for byte in b"what it stands for" * 64))
    out = run("./module", "./complement.so", tmp_path / "file", cwd=directory, env=env)
    assert out == "complement: what it stands  (0), read-only\n"


NOBODY = 65534


@pytest.fixture(scope="module")
def for_everyone(project, installed):
    """A directory that every user reads: library, a module in modules/, and a program that looks for the library there."""
    directory, env = project
    if os.geteuid() != 0:
        pytest.skip("only root can make programs that have rights of others")
    public = pathlib.Path(tempfile.mkdtemp(prefix="bdrv-test.", dir="/var/tmp"))  # TMPDIR may be of one user alone
    if os.statvfs(public).f_flag & os.ST_NOSUID or "NoNewPrivs:\t1" in pathlib.Path("/proc/self/status").read_text():
        public.rmdir()
        pytest.skip("programs get no rights of others here (nosuid, or no new privileges)")
    (public / "modules").mkdir()
    shutil.copy(installed[0] / "libbdrv.so.0", public)
    shutil.copy(directory / "complement.so", public / "modules")
    run(CC, "-Wall", "known.c", "-o", public / "known", *installed[1]("--cflags"), *installed[1]("--libs"),
        f"-Wl,-rpath,{public}", cwd=directory, env=env)
    for path in (public, *public.rglob("*")):
        path.chmod(0o755)
    yield public
    shutil.rmtree(public)


@pytest.mark.parametrize("bits, obeyed", [(0o755, True), (0o4755, False), (0o2755, False)],
                         ids=["plain", "set-user-ID", "set-group-ID"])
@pytest.mark.parametrize("modules", ["modules", "missing"])
def test_a_program_with_rights_of_others_ignores_the_environment(for_everyone, bits, obeyed, modules):
    program = for_everyone / "known"
    program.chmod(bits)
    out = run(program, "complement", user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
              env={"BDRV_MODULE_DIR": str(for_everyone / modules)})
    known, errors = out.splitlines()
    assert known == ("known" if obeyed and modules == "modules" else "unknown")
    assert ("missing" in errors) == (obeyed and modules == "missing")
    assert (errors == "no errors") == (not obeyed or modules == "modules")


def test_a_program_tests_stacks_that_it_makes_from_strings(project):
    directory, env = project
    out = run("./faults", cwd=directory, env=env)
    assert re.findall(r"^(?:not )?ok.*", out, re.M) == [f"ok {n} /faults/{name}" for n, name in
                                                       enumerate(("qcow2", "vdi", "raw"), 1)]


# ---- documentation ----

def put(directory, text):
    """A file, named in its first line, or a part of one: before the table of the driver, in it, or instead of something."""
    name, where, old = re.match(r"/\* (\S+?\.c)(?:: |, (before the table|in the table|instead of (\w+)) \*/\n| \*/)",
                                text).groups()
    path = directory / name
    if not where:
        path.write_text(text)
        return
    part, source = text.split("\n", 1)[1].strip("\n"), path.read_text()
    if where == "before the table":
        pattern, new = r"^(?=static const BlockDriver )", part + "\n\n"
    elif where == "in the table":
        pattern, new = r"(?<=\n)(?=\};\n\nbool )", part + "\n"
    else:
        pattern = rf"^(static\b[^;{{}}=]*\b{old}\([^;{{}}]*\)|typedef struct {old}) ?\n?\{{.*?^\}}[^\n]*\n"
        new = part + "\n"
    source, times = re.subn(pattern, lambda match: new, source, count=2, flags=re.M | re.S)
    assert times == 1, (where, times)
    path.write_text(source)


@pytest.mark.parametrize("name, kinds", [("embedding", {"c", "sh"}), ("threads", {"c", "sh"}),
                                         ("write-a-driver", {"c", "sh"}), ("driver-test", {"sh"})])
def test_the_programs_and_commands_of_a_page_work(tmp_path, installed, name, kinds):
    """```c blocks are files, or parts of them; ```sh blocks are run in order. Shown output must come."""
    libdir, _ = installed
    env = environment(libdir)
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(), re.S)
    assert {kind for kind, _ in blocks} == kinds | {"output"}
    shutil.copy(ROOT / "examples" / "driver-template" / "labelled.c", tmp_path)
    out = ""
    for kind, text in blocks:
        if kind == "c":
            put(tmp_path, text)
        elif kind == "sh":
            out = run("sh", "-ec", text, cwd=tmp_path, env=env)
        elif kind == "output":
            assert out == text


def test_the_commands_of_the_template_work(tmp_path, installed):
    libdir, _ = installed
    env = environment(libdir)
    for path in (ROOT / "examples" / "driver-template").iterdir():
        shutil.copy(path, tmp_path)
    run("bdrv-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M", cwd=tmp_path, env=env)
    commands = re.findall(r"^    (\w.*)$", (tmp_path / "README.md").read_text(), re.M)
    assert len(commands) == 6
    out = run("sh", "-ec", "\n".join(commands), cwd=tmp_path, env=env)
    assert "label: holiday" in out and ", 0 failed, " in out
