/* SPDX-License-Identifier: MIT */
/* What -h prints: of all subcommands, or of one, from syntax.c. */
#include <string.h>

#include "tools/img/img.h"

#define WIDTH 100      /* columns */
#define INDENT 8       /* of what goes on on the next line */
#define OPTION_WIDTH 30

/* Words, one behind the other, on lines of at most WIDTH columns. */
typedef struct Lines {
    size_t column;
    size_t indent; /* of the lines that follow */
    bool follows;  /* a word on the same line: a space between */
} Lines;

static void put_word(Lines *lines, const char *word)
{
    size_t length = strlen(word);

    if (lines->follows && lines->column + 1 + length > WIDTH) {
        printf("\n%*s", (int)lines->indent, "");
        lines->column = lines->indent;
    } else if (lines->follows) {
        putchar(' ');
        lines->column++;
    }
    fputs(word, stdout);
    lines->column += length;
    lines->follows = true;
}

static void put_words(Lines *lines, const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);

    for (char **word = words; *word; word++) {
        put_word(lines, *word);
    }
}

static void print_text(const char *text)
{
    g_auto(GStrv) paragraphs = g_strsplit(text, "\n\n", -1);

    for (char **paragraph = paragraphs; *paragraph; paragraph++) {
        Lines lines = { 0 };

        put_words(&lines, *paragraph);
        printf("\n");
    }
}

/* "convert [-f FMT] … SOURCE... TARGET" */
static void print_synopsis(const ImgSyntax *syntax, const char *before)
{
    Lines lines = { .indent = INDENT, .column = (size_t)printf("%s", before) };

    put_word(&lines, syntax->name);
    for (const ImgOption *option = syntax->options; option->id; option++) {
        char text[64];

        if (option->id != 'h') {
            img_option_text(option, text, sizeof(text));
            g_autofree char *word = g_strdup_printf("[%s]", text);
            put_word(&lines, word);
        }
    }
    put_words(&lines, syntax->operands);
    printf("\n");
}

static void print_option(const ImgOption *option)
{
    char text[64];
    Lines lines = { .indent = OPTION_WIDTH };

    img_option_text(option, text, sizeof(text));
    lines.column = (size_t)printf("  %s", text);
    if (option->id < IMG_OPTION_OUTPUT && option->name) {
        lines.column += (size_t)printf(", --%s", option->name);
    }
    if (lines.column + 2 > OPTION_WIDTH) {
        printf("\n");
        lines.column = 0;
    }
    printf("%*s", (int)(OPTION_WIDTH - lines.column), "");
    lines.column = OPTION_WIDTH;
    put_words(&lines, option->help);
    printf("\n");
}

static void print_examples(const ImgSyntax *syntax)
{
    g_auto(GStrv) lines = g_strsplit(syntax->examples, "\n", -1);

    printf("\nExamples:\n");
    for (char **line = lines; **line; line++) {
        if (**line == '#') {
            printf("  %s\n", *line);
        } else {
            printf("  %s %s\n", tool_name(), *line);
        }
    }
}

static void print_formats(void)
{
    printf("\nSupported formats:");
    for (unsigned n = 0; bdrv_driver_nth(n); n++) {
        printf(" %s", bdrv_driver_nth(n));
    }
    printf("\n");
}

void img_print_command_help(const ImgSyntax *syntax)
{
    g_autofree char *usage = g_strdup_printf("usage: %s ", tool_name());

    print_synopsis(syntax, usage);
    print_text(syntax->summary);
    if (syntax->description) {
        print_text(syntax->description);
    }
    printf("\n");
    for (const ImgOption *option = syntax->options; option->id; option++) {
        print_option(option);
    }
    print_examples(syntax);
    print_formats();
}

void img_print_help(void)
{
    printf("usage: %s [standard options] command [command options]\n"
           "Create, convert, inspect and change disk images.\n\n"
           "    '-h', '--help'       print this and exit; behind a command: print what it takes, with examples\n"
           "    '-V', '--version'    print the version and exit\n\n"
           "Command syntax:\n",
           tool_name());
    for (const ImgSyntax *syntax = img_syntaxes; syntax->name; syntax++) {
        print_synopsis(syntax, "  ");
    }
    for (const ImgTopic *topic = img_topics; topic->title; topic++) {
        printf("\n%s:\n", topic->title);
        print_text(topic->text);
    }
    printf("\nExample:\n"
           "  %s create -f qcow2 disk.qcow2 20G\n"
           "  %s convert -p -O qcow2 disk.raw disk.qcow2\n",
           tool_name(), tool_name());
    print_formats();
}
