/* SPDX-License-Identifier: MIT */
/* Run while building: writes bdrv-img's man page or its completion for bash, from syntax.c and completion.bash, to
 * standard output. */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/syntax.h"

/* ---- man page: see groff_man(7) ---- */

static void put_char(char c)
{
    switch (c) {
    case '-': fputs("\\-", stdout); break;
    case '\\': fputs("\\e", stdout); break;
    case '"': fputs("\\(dq", stdout); break;
    case '\'': fputs("\\(aq", stdout); break;
    case '^': fputs("\\(ha", stdout); break;
    case '~': fputs("\\(ti", stdout); break;
    case '`': fputs("\\(ga", stdout); break;
    default: putchar(c);
    }
}

/* Text as it is: dashes stay dashes, and no line is taken for a request. */
static void put_roff(const char *text)
{
    if (*text == '.' || *text == '\'') {
        fputs("\\&", stdout);
    }
    for (; *text; text++) {
        put_char(*text);
    }
}

/* Sentences start on lines of their own, so that the formatter puts the right space between. */
static void put_paragraphs(const char *text)
{
    for (; *text; text++) {
        if (text[0] == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", stdout);
            text++;
        } else if (text[0] == '.' && text[1] == ' ' && isupper((unsigned char)text[2])) {
            fputs(".\n", stdout);
            text++;
        } else {
            put_char(*text);
        }
    }
    putchar('\n');
}

static void man_synopsis(const ImgSyntax *syntax)
{
    printf(".nh\n.ad l\n.HP\n\\fBbdrv\\-img %s\\fR", syntax->name);
    for (const ImgOption *option = syntax->options; option->id; option++) {
        char text[64];

        if (option->id != 'h') {
            img_option_text(option, text, sizeof(text));
            fputs("\n[", stdout);
            put_roff(text);
            putchar(']');
        }
    }
    putchar('\n');
    put_roff(syntax->operands);
    fputs("\n.ad b\n.hy\n", stdout);
}

static void man_option(const ImgOption *option)
{
    fputs(".TP\n\\fB", stdout);
    if (option->id < IMG_OPTION_OUTPUT) {
        printf("\\-%c%s", option->id, option->name ? "\\fR, \\fB" : "");
    }
    if (option->name) {
        fputs("\\-\\-", stdout);
        put_roff(option->name);
    }
    fputs("\\fR", stdout);
    if (option->value) {
        fputs(" \\fI", stdout);
        put_roff(option->value);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put_roff(option->help);
    putchar('\n');
}

static void man_examples(const char *line)
{
    fputs(".PP\n.EX\n", stdout);
    while (*line) {
        size_t length = strcspn(line, "\n");
        char *copy = strndup(line, length);

        fputs(*line == '#' ? "" : "bdrv\\-img ", stdout);
        put_roff(copy);
        putchar('\n');
        free(copy);
        line += length + 1;
    }
    fputs(".EE\n", stdout);
}

static void man_command(const ImgSyntax *syntax)
{
    printf(".SS %s\n", syntax->name);
    man_synopsis(syntax);
    fputs(".PP\n", stdout);
    put_paragraphs(syntax->summary);
    if (syntax->description) {
        put_paragraphs(syntax->description);
    }
    for (const ImgOption *option = syntax->options; option->id; option++) {
        man_option(option);
    }
    man_examples(syntax->examples);
}

static void man_topic(const ImgTopic *topic)
{
    fputs(".SH ", stdout);
    for (const char *c = topic->title; *c; c++) {
        putchar(toupper((unsigned char)*c));
    }
    putchar('\n');
    put_paragraphs(topic->text);
}

static void print_man_page(const char *version)
{
    printf(".TH BDRV\\-IMG 1 \"\" \"libbdrv %s\" \"User Commands\"\n"
           ".SH NAME\nbdrv\\-img \\- create, convert, inspect and change disk images\n"
           ".SH SYNOPSIS\n\\fBbdrv\\-img\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIFILENAME\\fR]...\n"
           ".SH DESCRIPTION\n"
           "The arguments, the standard output, the exit status and the images are those of\n.BR qemu\\-img (1)\n"
           "version 7.2; called by that name, through a symbolic link, it uses it in its messages.\n"
           ".SH COMMANDS\n",
           version);
    for (const ImgSyntax *syntax = img_syntaxes; syntax->name; syntax++) {
        man_command(syntax);
    }
    for (const ImgTopic *topic = img_topics; topic->title; topic++) {
        man_topic(topic);
    }
    printf(".SH EXIT STATUS\n0 if all went well, 1 if not.\n"
           "The commands check and compare have more to tell, see there.\n"
           ".SH SEE ALSO\n.BR bdrv\\-io (1),\n.BR qemu\\-img (1)\n");
}

/* ---- completion for bash: see bash(1), Programmable Completion ---- */

static void bash_words(const ImgSyntax *syntax)
{
    for (const ImgOption *option = syntax->options; option->id; option++) {
        if (option->id < IMG_OPTION_OUTPUT) {
            printf(" -%c", option->id);
        }
        if (option->name) {
            printf(" --%s", option->name);
        }
    }
}

/* What completes the argument of an option: words of the shell */
static void bash_value(const char *value)
{
    if (strcmp(value, "FILE") == 0) {
        fputs("_bdrv_img_files", stdout);
    } else if (strcmp(value, "FMT") == 0) {
        fputs("_bdrv_img_formats", stdout);
    } else if (strcmp(value, "CACHE") == 0) {
        fputs("_bdrv_img_words 'none writeback writethrough directsync unsafe'", stdout);
    } else if (strcmp(value, "OPTIONS") == 0) {
        fputs("_bdrv_img_keys", stdout);
    } else if (strchr(value, '|')) {
        fputs("_bdrv_img_words '", stdout);
        for (; *value; value++) {
            putchar(*value == '|' ? ' ' : *value);
        }
        putchar('\'');
    } else {
        putchar(':');
    }
}

/* The options of a command, and what completes the argument of one: false if it takes none. */
static void bash_command(const ImgSyntax *syntax)
{
    printf("    %s)\n        options='", syntax->name);
    bash_words(syntax);
    fputs("'\n        case $2 in\n", stdout);
    for (const ImgOption *option = syntax->options; option->id; option++) {
        if (option->value) {
            fputs("        ", stdout);
            if (option->id < IMG_OPTION_OUTPUT) {
                printf("-%c%s", option->id, option->name ? "|" : "");
            }
            printf("%s%s) ", option->name ? "--" : "", option->name ? option->name : "");
            bash_value(option->value);
            fputs("; return 0 ;;\n", stdout);
        }
    }
    fputs("        esac ;;\n", stdout);
}

static bool print_file(const char *filename)
{
    FILE *file = fopen(filename, "r");
    int byte;

    if (!file) {
        perror(filename);
        return false;
    }
    while ((byte = getc(file)) != EOF) {
        putchar(byte);
    }
    fclose(file);
    return true;
}

static void print_completion(void)
{
    fputs("_bdrv_img_commands='", stdout);
    for (const ImgSyntax *syntax = img_syntaxes; syntax->name; syntax++) {
        printf(" %s", syntax->name);
    }
    fputs("'\n\n_bdrv_img_option() { # COMMAND OPTION\n    case $1 in\n", stdout);
    for (const ImgSyntax *syntax = img_syntaxes; syntax->name; syntax++) {
        bash_command(syntax);
    }
    fputs("    esac\n    return 1\n}\n", stdout);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "man") == 0) {
        print_man_page(argv[2]);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "bash") == 0) { /* the part of it that does not depend on the table */
        if (!print_file(argv[2])) {
            return 1;
        }
        print_completion();
        return 0;
    }
    fprintf(stderr, "usage: %s man VERSION | bash FILE\n", argv[0]);
    return 1;
}
