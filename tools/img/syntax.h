/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TOOLS_IMG_SYNTAX_H
#define BDRV_TOOLS_IMG_SYNTAX_H

/*
 * The command line of each subcommand, told once: parsing, help, the man page and the shell's completion come from here.
 * It needs nothing of the library, so that what makes the documents at build time (documents.c) can do without.
 */

#include <stddef.h>

typedef struct ImgOption {
    int id;            /* the letter, or IMG_OPTION_… */
    const char *name;  /* the long name without "--", NULL: has none */
    const char *value; /* what its argument is called, NULL: takes none. FILE, FMT, CACHE and OPTIONS can be completed,
                        * "a|b" are the choices */
    const char *help;
} ImgOption;

typedef struct ImgSyntax {
    const char *name;
    const char *operands;     /* behind the options */
    const char *summary;      /* one line */
    const char *description;  /* further paragraphs, an empty line between them; NULL: none */
    const char *examples;     /* "# what it is for" and command lines, without the program's name; a line each */
    const ImgOption *options; /* up to one without id */
} ImgSyntax;

extern const ImgSyntax img_syntaxes[]; /* up to one without name, by name */

/* What concerns more than one subcommand: a title and a text for each, up to one without title. */
typedef struct ImgTopic {
    const char *title, *text;
} ImgTopic;
extern const ImgTopic img_topics[];

/** img_find_syntax() - of the subcommand called @name; NULL: there is none */
const ImgSyntax *img_find_syntax(const char *name);

/** img_option_text() - "-f FMT" or "--output human|json" into @text of @size bytes; the letter if it has one */
void img_option_text(const ImgOption *option, char *text, size_t size);

/* Long options without a letter, the same number in every subcommand */
enum {
    IMG_OPTION_OUTPUT = 256,
    IMG_OPTION_EXPLAIN,
    IMG_OPTION_DRY_RUN,
    IMG_OPTION_BACKING_CHAIN,
    IMG_OPTION_GRAPH,
    IMG_OPTION_OBJECT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_TARGET_IMAGE_OPTS,
    IMG_OPTION_PATTERN,
    IMG_OPTION_FLUSH_INTERVAL,
    IMG_OPTION_NO_DRAIN,
    IMG_OPTION_PREALLOCATION,
    IMG_OPTION_SHRINK,
    IMG_OPTION_SALVAGE,
    IMG_OPTION_TARGET_IS_ZERO,
    IMG_OPTION_BITMAPS,
    IMG_OPTION_SKIP_BROKEN_BITMAPS,
    IMG_OPTION_RESUME,
    IMG_OPTION_SIZE,
    IMG_OPTION_FORCE,
    IMG_OPTION_ADD,
    IMG_OPTION_REMOVE,
    IMG_OPTION_CLEAR,
    IMG_OPTION_ENABLE,
    IMG_OPTION_DISABLE,
    IMG_OPTION_MERGE,
};

#endif
