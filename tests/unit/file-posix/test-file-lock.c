/* SPDX-License-Identifier: MIT */
/* Rights as file locks, among our own nodes and with qemu-io. */

#include "file-test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CR BDRV_RIGHT_CONSISTENT_READ
#define W BDRV_RIGHT_WRITE
#define WU BDRV_RIGHT_WRITE_UNCHANGED
#define R BDRV_RIGHT_RESIZE

/* What stacks take, as measured with qemu-io: used, not shared. */
#define QCOW2_RW (CR | W | R), (W | R)
#define QCOW2_RO CR, (W | R)
#define SHARED_RO CR, 0
#define RAW_RW (CR | W), 0

static const struct {
    const char *what;
    unsigned used, unshared;
    unsigned other_used, other_unshared;
    const char *error; /* NULL: both work together */
} cases[] = {
    { "two writers", QCOW2_RW, QCOW2_RW, "write" },
    { "a reader beside a writer", QCOW2_RW, QCOW2_RO, "write" },
    { "a writer beside a reader", QCOW2_RO, QCOW2_RW, "write" },
    { "two readers", QCOW2_RO, QCOW2_RO, NULL },
    { "force-share beside a writer", QCOW2_RW, SHARED_RO, NULL },
    { "two raw writers share", RAW_RW, RAW_RW, NULL },
    { "raw writer beside a qcow2 reader", QCOW2_RO, RAW_RW, "write" },
    { "only resize conflicts", CR, R, (CR | R), 0, "resize" },
};

static void test_pair(gconstpointer data)
{
    unsigned i = GPOINTER_TO_UINT(data);
    g_autofree char *path = test_make_file("pair", 4096, 0);
    TestFile *a = test_open_ok(path, NULL, BDRV_O_RDWR), *b = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    g_assert_true(test_set_rights(a, cases[i].used, cases[i].unshared, &error));
    g_assert_no_error(error);
    bool ok = test_set_rights(b, cases[i].other_used, cases[i].other_unshared, &error);
    if (cases[i].error) {
        g_autofree char *quoted = g_strdup_printf("\"%s\"", cases[i].error);
        g_assert_false(ok);
        g_assert_nonnull(strstr(error->message, "force-share"));
        test_assert_error(error, EBUSY, quoted);
        /* Nothing is left behind by the one refused: the first may still take what it wants. */
        g_assert_true(test_set_rights(a, 0xf, 0xf, &error));
        test_close(a);
        g_assert_true(test_set_rights(b, cases[i].other_used, cases[i].other_unshared, &error));
    } else {
        g_assert_true(ok);
        test_close(a);
    }
    test_close(b);
}

static bool has_lock(TestFile *file, const char *path, off_t byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    int fd = open(path, O_RDWR | O_CLOEXEC);

    g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &lock), ==, 0);
    close(fd);
    return lock.l_type != F_UNLCK;
}

static void assert_locks(TestFile *file, const char *path, unsigned used, unsigned unshared)
{
    for (int n = 0; n < 4; n++) {
        g_assert_cmpint(has_lock(file, path, 100 + n), ==, !!(used & 1u << n));
        g_assert_cmpint(has_lock(file, path, 200 + n), ==, !!(unshared & 1u << n));
    }
}

static void test_bytes(void)
{
    g_autofree char *path = test_make_file("bytes", 4096, 0);
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    assert_locks(file, path, 0, 0);
    g_assert_true(test_set_rights(file, QCOW2_RW, &error));
    assert_locks(file, path, QCOW2_RW);
    g_assert_true(test_set_rights(file, CR | WU, W, &error));
    assert_locks(file, path, CR | WU, W);
    g_assert_true(test_set_rights(file, 0, 0, &error));
    assert_locks(file, path, 0, 0);
    test_close(file);
}

static void test_reopen_hands_over(void)
{
    g_autofree char *path = test_make_file("handover", 4096, 0);
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    g_assert_true(test_set_rights(file, QCOW2_RW, &error));
    g_assert_true(test_reopen(file, NULL, 0, &error));
    assert_locks(file, path, QCOW2_RW);
    g_assert_true(test_set_rights(file, QCOW2_RO, &error));
    assert_locks(file, path, QCOW2_RO);
    g_assert_true(test_reopen(file, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE, &error));
    g_assert_true(test_set_rights(file, QCOW2_RW, &error));
    assert_locks(file, path, QCOW2_RW);
    test_close(file);
}

static void test_locking_off(void)
{
    g_autofree char *path = test_make_file("off", 4096, 0);
    TestFile *a = test_open_ok(path, "locking=on", BDRV_O_RDWR), *b = test_open_ok(path, "locking=off", BDRV_O_RDWR);
    GError *error = NULL;

    g_assert_true(test_set_rights(a, 0xf, 0xf, &error));
    g_assert_true(test_set_rights(b, 0xf, 0xf, &error));
    g_assert_no_error(error);
    test_close(b);
    assert_locks(a, path, 0xf, 0xf);
    test_close(a);
}

static void test_write_lock_of_a_stranger(void)
{
    g_autofree char *path = test_make_file("stranger", 4096, 0);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    GError *error = NULL;

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    g_assert_false(test_set_rights(file, QCOW2_RO, &error));
    test_assert_error(error, EBUSY, "locked by another program");
    close(fd);
    g_assert_true(test_set_rights(file, QCOW2_RO, &error));
    test_close(file);
}

/* ---- who holds them ---- */

static void test_holder_is_this_process(void)
{
    g_autofree char *path = test_make_file("own", 4096, 0);
    TestFile *a = test_open_ok(path, NULL, BDRV_O_RDWR), *b = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    g_assert_true(test_set_rights(a, QCOW2_RW, &error));
    g_assert_false(test_set_rights(b, QCOW2_RW, &error));
    test_assert_error(error, EBUSY, "held by this process itself");
    test_close(a);
    test_close(b);
}

/* A process that has @path locked on one byte until hold_end(), as another kind of lock or with another's descriptor. */
static pid_t hold(const char *path, int fd, int command, struct flock lock)
{
    int ready[2];
    char c;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fd = path ? open(path, O_RDWR | O_CLOEXEC) : fd;
        bool held = fd >= 0 && fcntl(fd, command, &lock) == 0 && write(ready[1], "", 1) == 1;
        while (held) {
            pause();
        }
        _exit(1);
    }
    close(ready[1]);
    g_assert_cmpint(read(ready[0], &c, 1), ==, 1);
    close(ready[0]);
    return pid;
}

static void hold_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_holders_are_named(void)
{
    static const struct {
        int command;
        short type;
        off_t byte, bytes;
        bool named;
    } locks[] = {
        { F_OFD_SETLK, F_RDLCK, 201, 1, true },   { F_OFD_SETLK, F_RDLCK, 0, 0, true },
        { F_SETLK, F_RDLCK, 200, 4, true },       { F_SETLK, F_WRLCK, 0, 0, true },
        { F_OFD_SETLK, F_RDLCK, 202, 1, false },  { F_OFD_SETLK, F_WRLCK, 0, 100, false },
    };
    g_autofree char *path = test_make_file("named", 4096, 0), *other = test_make_file("not-it", 4096, 0);
    struct flock all = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    pid_t stranger = hold(other, -1, F_OFD_SETLK, all);

    for (unsigned i = 0; i < G_N_ELEMENTS(locks); i++) {
        struct flock lock = { .l_type = locks[i].type, .l_whence = SEEK_SET, .l_start = locks[i].byte,
                              .l_len = locks[i].bytes };
        TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
        pid_t pid = hold(path, -1, locks[i].command, lock);
        g_autofree char *held = g_strdup_printf("process %d (test-file-lock)", (int)pid);
        GError *error = NULL;

        g_test_message("lock %u", i);
        g_assert_cmpint(test_set_rights(file, W, 0, &error), ==, !locks[i].named);
        if (locks[i].named) {
            g_assert_null(strstr(error->message, ", process"));
            test_assert_error(error, EBUSY, held);
        }
        hold_end(pid);
        test_close(file);
    }
    hold_end(stranger);
}

/* Whoever passed it or got it has the locks that we have: that is not what is in the way. */
static void test_shared_descriptions_are_no_holders(void)
{
    g_autofree char *path = test_make_file("passed", 4096, 0);
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 203, .l_len = 1 };
    int fd = open(path, O_RDWR | O_CLOEXEC);
    g_autofree char *options = g_strdup_printf("fd=%d", fd);
    GError *error = NULL;
    TestFile *file = test_open_options("file", options, BDRV_O_RDWR, &error);

    g_assert_no_error(error);
    g_assert_true(test_set_rights(file, CR, R, &error)); /* a lock on byte 203, too */
    pid_t other = hold(NULL, fd, F_OFD_SETLK, lock);      /* has the same by inheritance */
    pid_t pid = hold(path, -1, F_OFD_SETLK, lock);
    g_autofree char *held = g_strdup_printf("held by process %d (test-file-lock);", (int)pid);
    g_assert_false(test_set_rights(file, CR | R, R, &error));
    test_assert_error(error, EBUSY, held);
    hold_end(pid);
    hold_end(other);
    g_assert_true(test_set_rights(file, CR | R, R, &error));
    test_close(file);
    close(fd);
}

/* ---- file systems without locks, and locks that fail ---- */

static int lock_error;
static int failing_command;

static int failing_lock(int fd, int command, struct flock *lock)
{
    if (command == failing_command && lock->l_type != F_UNLCK) {
        errno = lock_error;
        return -1;
    }
    return fcntl(fd, command, lock);
}

static void meet_lock_error(const char *options, int command, int code, bool works)
{
    g_autofree char *path = test_make_file("no-locks", 4096, 0);
    TestFile *file = test_open_ok(path, options, BDRV_O_RDWR);
    FileCalls calls = file_system_calls;
    GError *error = NULL;

    g_test_message("%s, command %d: %s", options, command, g_strerror(code));
    g_assert_true(test_set_rights(file, CR, 0, &error)); /* held when it happens */
    lock_error = code;
    failing_command = command;
    calls.lock = failing_lock;
    test_state(file)->calls = &calls;
    g_assert_true(test_set_rights(file, QCOW2_RW, &error) == works);
    test_state(file)->calls = &file_system_calls;
    if (works) {
        g_assert_no_error(error);
        assert_locks(file, path, 0, 0); /* what was held before went too */
    } else {
        test_assert_error(error, code, "use locking=off");
        assert_locks(file, path, CR, 0);
        g_assert_true(test_set_rights(file, QCOW2_RW, &error)); /* an error of the moment turns nothing off */
        assert_locks(file, path, QCOW2_RW);
    }
    test_close(file);
}

static void test_lock_errors(void)
{
    static const int no_locks[] = { ENOSYS, EOPNOTSUPP, EINVAL }, failures[] = { ENOLCK, EIO, ENOMEM, ESTALE };
    static const int commands[] = { F_OFD_SETLK, F_OFD_GETLK };

    for (unsigned c = 0; c < G_N_ELEMENTS(commands); c++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(no_locks); i++) {
            meet_lock_error("locking=auto", commands[c], no_locks[i], true);
            meet_lock_error("locking=on", commands[c], no_locks[i], false);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(failures); i++) {
            meet_lock_error("locking=auto", commands[c], failures[i], false);
            meet_lock_error("locking=on", commands[c], failures[i], false);
        }
    }
}

/* ---- with qemu-io ---- */

typedef struct QemuIo {
    GPid pid;
    int in, out;
} QemuIo;

static bool have_qemu(void)
{
    g_autofree char *io = g_find_program_in_path("qemu-io");
    g_autofree char *img = g_find_program_in_path("qemu-img");

    if (!io || !img) {
        if (g_getenv("CI")) {
            g_error("qemu-io and qemu-img are needed");
        }
        g_test_skip("qemu-io is not installed");
        return false;
    }
    return true;
}

static int run_tool(const char *const *argv)
{
    int status = -1;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL,
                               G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                               NULL, NULL, NULL, &status, NULL));
    return g_spawn_check_wait_status(status, NULL) ? 0 : 1;
}

static char *make_qcow2(const char *name)
{
    char *path = test_path(name);
    const char *const argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", path, "1M", NULL };

    g_assert_cmpint(run_tool(argv), ==, 0);
    return path;
}

/* qemu-io that has @path open until qemu_io_end(). */
static QemuIo qemu_io_start(const char *path, const char *option)
{
    const char *argv[] = { "qemu-io", "-f", "qcow2", path, option, NULL };
    QemuIo io;
    char c;
    GString *seen = g_string_new(NULL);

    g_assert_true(g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                           G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &io.pid,
                                           &io.in, &io.out, NULL, NULL));
    g_assert_cmpint(write(io.in, "length\n", 7), ==, 7);
    while (!strstr(seen->str, "1 MiB")) {
        g_assert_cmpint(read(io.out, &c, 1), ==, 1);
        g_string_append_c(seen, c);
    }
    g_string_free(seen, TRUE);
    return io;
}

static void qemu_io_end(QemuIo *io)
{
    int status;

    close(io->in);
    waitpid(io->pid, &status, 0);
    close(io->out);
    g_spawn_close_pid(io->pid);
}

static void test_open_in_qemu_io(void)
{
    GError *error = NULL;

    if (!have_qemu()) {
        return;
    }
    g_autofree char *path = make_qcow2("theirs");
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);

    QemuIo io = qemu_io_start(path, NULL);
    g_assert_false(test_set_rights(file, QCOW2_RW, &error));
    test_assert_error(error, EBUSY, "\"write\"");
    g_assert_false(test_set_rights(file, QCOW2_RO, &error));
    test_assert_error(error, EBUSY, "force-share");
    g_assert_true(test_set_rights(file, SHARED_RO, &error));
    qemu_io_end(&io);

    io = qemu_io_start(path, "-r");
    g_assert_false(test_set_rights(file, QCOW2_RW, &error));
    test_assert_error(error, EBUSY, "\"write\"");
    g_assert_true(test_set_rights(file, QCOW2_RO, &error));
    qemu_io_end(&io);
    g_assert_true(test_set_rights(file, QCOW2_RW, &error));
    test_close(file);
}

static void test_open_here(void)
{
    GError *error = NULL;

    if (!have_qemu()) {
        return;
    }
    g_autofree char *path = make_qcow2("ours");
    const char *const rw[] = { "qemu-io", "-f", "qcow2", "-c", "length", path, NULL };
    const char *const ro[] = { "qemu-io", "-r", "-f", "qcow2", "-c", "length", path, NULL };
    const char *const shared[] = { "qemu-io", "-r", "-U", "-f", "qcow2", "-c", "length", path, NULL };
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);

    g_assert_true(test_set_rights(file, QCOW2_RW, &error));
    g_assert_cmpint(run_tool(rw), ==, 1);
    g_assert_cmpint(run_tool(ro), ==, 1);
    g_assert_cmpint(run_tool(shared), ==, 0);
    g_assert_true(test_set_rights(file, QCOW2_RO, &error));
    g_assert_cmpint(run_tool(rw), ==, 1);
    g_assert_cmpint(run_tool(ro), ==, 0);
    g_assert_true(test_set_rights(file, SHARED_RO, &error));
    g_assert_cmpint(run_tool(rw), ==, 0);
    test_close(file);
    g_assert_cmpint(run_tool(rw), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_dir_make();

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strdup_printf("/file/lock/%s", cases[i].what);
        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_pair);
    }
    g_test_add_func("/file/lock/rights are the bytes that QEMU documents", test_bytes);
    g_test_add_func("/file/lock/reopen hands the locks over", test_reopen_hands_over);
    g_test_add_func("/file/lock/locking=off takes none and sees none", test_locking_off);
    g_test_add_func("/file/lock/a write lock of another program means keep out", test_write_lock_of_a_stranger);
    g_test_add_func("/file/lock/another node of this process is told as the holder", test_holder_is_this_process);
    g_test_add_func("/file/lock/the holder of any lock in the way is named", test_holders_are_named);
    g_test_add_func("/file/lock/who shares our own locks is not named", test_shared_descriptions_are_no_holders);
    g_test_add_func("/file/lock/only a lack of locks turns locking=auto off", test_lock_errors);
    g_test_add_func("/file/lock/an image open in qemu-io is refused here", test_open_in_qemu_io);
    g_test_add_func("/file/lock/an image open here is refused by qemu-io", test_open_here);

    int ret = g_test_run();
    test_dir_remove();
    return ret;
}
