/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TOOLS_IMG_H
#define BDRV_TOOLS_IMG_H

/* bdrv-img from inside: one file a subcommand, and what they share. */

#include <getopt.h>
#include <stdio.h>

#include "tools/common/tool.h"
#include "tools/img/syntax.h"

/* A subcommand gets its name as argv[0] and answers the exit code; the message has been printed. */
int img_amend(int argc, char **argv);
int img_bench(int argc, char **argv);
int img_bitmap(int argc, char **argv);
int img_check(int argc, char **argv);
int img_commit(int argc, char **argv);
int img_compare(int argc, char **argv);
int img_convert(int argc, char **argv);
int img_create(int argc, char **argv);
int img_dd(int argc, char **argv);
int img_info(int argc, char **argv);
int img_map(int argc, char **argv);
int img_measure(int argc, char **argv);
int img_rebase(int argc, char **argv);
int img_resize(int argc, char **argv);
int img_snapshot(int argc, char **argv);

/* ---- block status of images that do not change (extent.c) ---- */

/* Who goes through an image in pieces asks once for each extent: an image may look far to tell where it ends. */
typedef struct ImgExtent {
    BlockBackend *blk;
    int64_t offset;
    BlockExtent extent;
} ImgExtent;

/** img_has_data() - it must be read; everything else reads as zeroes (where a backing file shows nothing) */
static inline bool img_has_data(const BlockExtent *extent)
{
    return extent->kind == EXTENT_DATA && !extent->hole;
}
/** img_extent_known() - what is left of the extent at @offset; false: ask, and keep the answer */
bool img_extent_known(const ImgExtent *known, BlockBackend *blk, int64_t offset, BlockExtent *extent);
void img_extent_keep(ImgExtent *known, BlockBackend *blk, int64_t offset, const BlockExtent *extent);

/* ---- command line (command-line.c) ---- */

/** img_usage_error() - message and "Try 'NAME --help' for more information"; returns 1 */
int img_usage_error(const char *format, ...) G_GNUC_PRINTF(1, 2);
void img_print_help(void);
void img_print_command_help(const ImgSyntax *syntax);

/**
 * img_next_option() - the next option of a subcommand, by its syntax; its argument is in optarg
 * --help and --object are dealt with.
 *
 * Returns: the option's id; -1: no more, optind is the first operand; 'h': help was printed, end with 0; IMG_OPTION_OBJECT:
 * an object was refused, '?': that was no option; both have been told, end with an error.
 */
int img_next_option(int argc, char **argv);

/** img_take_cache() - a cache mode's name into @flags; false with a message, in which it is called @what; NULL: as they are */
bool img_take_cache(const char *name, const char *what, BdrvOpenFlags *flags);

typedef enum ImgOutput {
    IMG_OUTPUT_HUMAN,
    IMG_OUTPUT_JSON,
    IMG_OUTPUT_SVG, /* map only */
} ImgOutput;

/* What the subcommands that only look at one image have in common. */
typedef struct ImgLook {
    ToolImage image;
    bool can_draw; /* knows --output=svg */
    const char *output_text; /* as given; NULL: human */
    ImgOutput output;        /* set by img_look_output() */
} ImgLook;
/** img_look_option() - take one of them; -1: go on; else the exit code: help, or an error with its message */
int img_look_option(ImgLook *look, int option);
/** img_look_output() - what --output says; false with a message */
bool img_look_output(ImgLook *look);
/** img_look_filename() - the one argument left is the image's name; takes --output too; false with a message */
bool img_look_filename(ImgLook *look, int argc, char **argv);

/** img_parse_size() - a size argument; the two-line message on error */
bool img_parse_size(const char *text, const char *what, int64_t *bytes);
/** img_parse_integer() - a plain number @min .. @max; "Invalid @what specified" otherwise */
bool img_parse_integer(const char *text, const char *what, int64_t min, int64_t max, int64_t *value);

/** img_add_options() - one -o argument into *@options (made when NULL); message on error */
bool img_add_options(BdrvOptions **options, const char *text);
bool img_table_has(const BdrvOptionSpec *table, const char *key);
/** img_check_option_types() - whether what @table has as a switch, number or size is one; not which one */
bool img_check_option_types(const BdrvOptions *options, const BdrvOptionSpec *table, GError **errp);
/** img_wants_help() - whether a -o argument asks for the list: "help" or "?" */
bool img_wants_help(const char *text);
/** img_print_options_help() - what -o help prints; @filename may be NULL; exit code */
int img_print_options_help(const char *format, const char *filename);
/** img_print_amend_help() - the same for what can be amended */
int img_print_amend_help(const char *format);

/** img_open() - tool_open() with the message "Could not open 'x': …" on error */
BlockBackend *img_open(BdrvGraph *graph, const ToolImage *image);
/** img_close() - blk_close() with a message; false on error */
bool img_close(BlockBackend *blk, const char *filename);

/** img_create_image() - what create, convert and dd do to make an image; prints errors
 * @options: taken. @size: bytes, -1 if not given. */
bool img_create_image(BdrvGraph *graph, const char *format, const char *filename, BdrvOptions *options, int64_t size,
                      bool announce, bool check_backing);

/** img_json_text() - an object as the JSON outputs print it, without a trailing newline; caller frees */
char *img_json_text(const BdrvOptions *object);

/** img_map_extent() - of the disk at @offset, up to @end at most; false with a message (map.c) */
bool img_map_extent(BlockBackend *blk, int64_t offset, int64_t end, BlockExtent *extent);
/** img_map_svg() - print a picture of the disk from @start to @end; exit code (map_svg.c) */
int img_map_svg(BlockBackend *blk, int64_t start, int64_t end);

/* ---- findings of a check, explained (explain.c) ---- */

typedef struct ImgFindings ImgFindings;
ImgFindings *img_findings_new(void);
void img_findings_free(ImgFindings *findings); /* NULL is allowed */
void img_findings_add(ImgFindings *findings, const BdrvCheckKind *kind, const char *text);
void img_findings_print(const ImgFindings *findings);
/** img_findings_to_json() - as a list at @key of @object */
void img_findings_to_json(const ImgFindings *findings, BdrvOptions *object, const char *key);

/* ---- internal snapshots (snapshot.c) ---- */

/* What -l says: "snapshot.id=…,snapshot.name=…", or text that is an id or a name. */
typedef struct ImgSnapshotParam {
    const char *text; /* NULL: the others say it */
    char *id, *name;  /* NULL: any */
} ImgSnapshotParam;

/** img_parse_snapshot_param() - false with a message; @param is to be cleared in any case */
bool img_parse_snapshot_param(const char *text, ImgSnapshotParam *param);
void img_clear_snapshot_param(ImgSnapshotParam *param);
/** img_load_snapshot() - show a snapshot instead of the disk; false with a message */
bool img_load_snapshot(BlockBackend *blk, const ImgSnapshotParam *param);
/** img_print_snapshots() - the table that info and snapshot -l print */
void img_print_snapshots(const BdrvSnapshotInfo *list, int count);

/* ---- persistent dirty bitmaps (bitmap.c); false with a message ---- */

/** img_check_bitmaps() - whether @source has bitmaps that can all be copied, or left out with @skip_broken */
bool img_check_bitmaps(BlockBackend *source, bool skip_broken);
bool img_supports_bitmaps(BlockBackend *target);
/** img_copy_bitmaps() - all of them; with @skip_broken those that are inconsistent are left out with a warning */
bool img_copy_bitmaps(BlockBackend *source, BlockBackend *target, bool skip_broken);

/* ---- progress (progress.c) ---- */

typedef enum ImgProgressUnit {
    IMG_PROGRESS_BYTES, /* a rate makes sense */
    IMG_PROGRESS_STEPS,
} ImgProgressUnit;

/** img_progress_start() - print progress if @wanted (-p), in pipes every @step per cent; SIGUSR1 prints it in any case */
void img_progress_start(bool wanted, ImgProgressUnit unit, double step);
void img_progress_begin(void); /* 0%; the bar comes with the first update, so that errors before stand alone */
void img_progress_update(int64_t done, int64_t total);
/** img_progress_report() - the same as a BdrvProgressFunc; @opaque is not used */
bool img_progress_report(void *opaque, int64_t done, int64_t total);
void img_progress_complete(void); /* all is done: 100% */
void img_progress_end(void);      /* in any case */
bool img_progress_wanted(void);
/** img_progress_give_way() - a message is about to be printed: let the bar stay on the line above */
void img_progress_give_way(void);

/* ---- being interrupted (interrupt.c) ---- */

/** img_interrupt_catch() - from now on the first SIGINT, SIGTERM or SIGHUP is only remembered; the next one kills */
void img_interrupt_catch(void);
/** img_interrupted() - the number of the signal that came, 0: none */
int img_interrupted(void);
/** img_interrupt_end() - die of the signal that came, so that the shell knows; returns if none has come */
void img_interrupt_end(void);

/* ---- going on with a copy that was stopped (resume.c) ---- */

typedef struct ImgResume ImgResume;
ImgResume *img_resume_new(const char *target);
void img_resume_free(ImgResume *resume); /* NULL is allowed */
/** img_resume_note() - what must be the same when the copy goes on; _file(): that file, with @content unchanged */
void img_resume_note(ImgResume *resume, const char *key, const char *text);
void img_resume_note_file(ImgResume *resume, const char *key, const char *filename, bool content);
bool img_resume_exists(const ImgResume *resume);
/** img_resume_load() - how far the copy is, of @length bytes; false with a message if it is not this one */
bool img_resume_load(ImgResume *resume, int64_t length, int64_t *flushed);
bool img_resume_save(ImgResume *resume, int64_t flushed); /* false with a message */
void img_resume_done(ImgResume *resume);

/* ---- moving data (transfer.c) ---- */

typedef struct ImgTransfer {
    BlockBackend **sources; /* one after the other */
    unsigned source_count;
    BlockBackend *target;
    int64_t length;          /* bytes to transfer in all; what the sources lack reads as zeroes */
    int64_t source_start;    /* dd skip: first byte of the (only) source */
    int base_depth;          /* depth of the layer shared with the target's backing file, -1: none */
    int64_t target_backing_length;
    bool target_reads_zero;  /* what is not written reads as zeroes */
    int64_t sparse_bytes;    /* shortest run of zeroes not written, 0: write everything */
    unsigned coroutines;     /* 1 .. 16 */
    bool out_of_order;
    bool compressed;         /* the target can */
    bool copy_range;
    bool salvage;
    bool quiet;
    int64_t rate_limit;      /* bytes a second, 0: none */
    ImgResume *resume;       /* NULL: nobody goes on if it is stopped */
    int64_t start;           /* resumed: what lies before is in the target */
} ImgTransfer;

/** img_transfer() - copy; 0 or -errno, message printed */
int img_transfer(ImgTransfer *transfer);

#endif
