/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TOOLS_IO_H
#define BDRV_TOOLS_IO_H

/* bdrv-io from inside: the session, the command table, and helpers of the commands. */

#include <time.h>

#include "tools/common/tool.h"

typedef struct IoSession {
    BdrvGraph *graph;
    BlockBackend *blk; /* NULL: no file open */
    unsigned in_flight; /* aio requests */
    bool quit;
    char *explained; /* what blk_explain() said last, which has been printed; NULL: nothing */
    BdrvOpenFlags flags; /* what @blk was opened with: a reopen keeps what it does not speak of */
} IoSession;

/* A command answers 0, or -errno (or -EINVAL for a usage error); the message has been printed. */
typedef struct IoCommand {
    const char *name;
    int (*run)(IoSession *session, int argc, char **argv);
    int argc_min, argc_max; /* arguments after the name; -1: any number */
    bool needs_no_file;
    const char *args;
    const char *one_line;
    const char *long_help; /* NULL: none */
    bool writes; /* refused on a read-only image */
} IoCommand;

int io_run_line(IoSession *session, char *line);
const IoCommand *io_find_command(const char *name);

int io_usage(const IoCommand *command); /* print the usage line; -EINVAL */

/* The commands, by file */
int io_open(IoSession *session, int argc, char **argv);
int io_reopen(IoSession *session, int argc, char **argv);
int io_close(IoSession *session, int argc, char **argv);
int io_read(IoSession *session, int argc, char **argv);
int io_readv(IoSession *session, int argc, char **argv);
int io_write(IoSession *session, int argc, char **argv);
int io_writev(IoSession *session, int argc, char **argv);
int io_aio_read(IoSession *session, int argc, char **argv);
int io_aio_write(IoSession *session, int argc, char **argv);
int io_aio_flush(IoSession *session, int argc, char **argv);
int io_flush(IoSession *session, int argc, char **argv);
int io_discard(IoSession *session, int argc, char **argv);
int io_truncate(IoSession *session, int argc, char **argv);
int io_length(IoSession *session, int argc, char **argv);
int io_info(IoSession *session, int argc, char **argv);
int io_alloc(IoSession *session, int argc, char **argv);
int io_map(IoSession *session, int argc, char **argv);
int io_break(IoSession *session, int argc, char **argv);
int io_remove_break(IoSession *session, int argc, char **argv);
int io_wait_break(IoSession *session, int argc, char **argv);
int io_resume(IoSession *session, int argc, char **argv);
int io_sleep(IoSession *session, int argc, char **argv);

/** io_tell_breaks() - print when requests stop at breakpoints and go on */
void io_tell_breaks(BdrvGraph *graph);

/* How an image is opened if nothing is said */
#define IO_DEFAULT_FLAGS (BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_WRITETHROUGH)

/** io_open_image() - open into the session; prints what is wrong. 0 or -errno */
int io_open_image(IoSession *session, const ToolImage *image);

/* number.c: print what is wrong and answer false */
bool io_parse_number(const char *text, int64_t *value); /* a size; must not be negative */
bool io_parse_pattern(const char *text, int *byte);

/* The longest request that one command makes */
#define IO_MAX_BYTES INT64_C(2147483136)

/* A scatter/gather buffer filled with one byte */
typedef struct IoBuffer {
    uint8_t *data;
    struct iovec *vec;
    BdrvIov iov;
} IoBuffer;

/** io_buffer_init() - one element a length of @lengths; false (message printed) on a bad length */
bool io_buffer_init(IoBuffer *buffer, BlockBackend *blk, char **lengths, unsigned count, int byte);
/** io_buffer_init_size() - one element */
bool io_buffer_init_size(IoBuffer *buffer, BlockBackend *blk, int64_t bytes, int byte);
void io_buffer_free(IoBuffer *buffer);
bool io_buffer_is(const IoBuffer *buffer, size_t offset, size_t bytes, int byte);

/* A command that moves data, from its options to what it shows (transfer.c) */
typedef struct IoTransfer {
    bool reads;
    const char *operation, *verb; /* "readv failed: …"; "read 512/512 bytes …" */
    bool machine_readable, quiet, verbose, zeroes, has_pattern;
    int pattern; /* written, or what is read must be */
    BdrvRequestFlags flags;
    int64_t offset, bytes;
    int64_t verify_start, verify_length;
    IoBuffer buffer; /* data NULL: none */
    struct timespec began;
} IoTransfer;

/** io_transfer_option() - take one of the options C f n P q u v z, as getopt gave it; usage for any other. 0 or -EINVAL */
int io_transfer_option(IoTransfer *transfer, int option, const IoCommand *self);
/** io_transfer_options() - take all of a command that has no others */
int io_transfer_options(IoTransfer *transfer, int argc, char **argv, const char *options, const IoCommand *self);
/** io_transfer_vector() - parse "offset length [length …]" and make the buffer. 0 or -EINVAL */
int io_transfer_vector(IoTransfer *transfer, BlockBackend *blk, int argc, char **argv, const IoCommand *self);
bool io_transfer_buffer(IoTransfer *transfer, BlockBackend *blk); /* of @transfer->bytes */
/** io_transfer_end() - verify and report, or say what failed; free the buffer. @ret, or -EINVAL if other data was read */
int io_transfer_end(IoTransfer *transfer, int ret);

/* report.c */
void io_report(const char *verb, struct timespec start, int64_t offset, int64_t wanted, int64_t total, int ops,
               bool machine_readable);
void io_dump(const void *data, int64_t offset, size_t bytes);
struct timespec io_now(void);

#endif
