/* SPDX-License-Identifier: MIT */
/*
 * check: look for errors in an image's metadata, and repair them. Exit codes: 0 clean, 1 not checked, 2 corrupt,
 * 3 leaks, 63 no checks.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

enum { EXIT_CLEAN = 0, EXIT_NOT_CHECKED = 1, EXIT_CORRUPT = 2, EXIT_LEAKS = 3, EXIT_UNSUPPORTED = 63 };

typedef struct Check {
    ImgLook look;
    BdrvCheckFix fix;
    const char *cache;
    bool quiet, explain, dry_run;
    ImgFindings *found, *left; /* with explain: of the first look, of the one after a repair */
} Check;

static bool is_human(const Check *check)
{
    return check->look.output != IMG_OUTPUT_JSON && !check->quiet;
}

static void print_finding(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    fprintf(stderr, "%s\n", text);
}

static void keep_finding(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    if (kind->severity == BDRV_CHECK_NOTE) {
        print_finding(NULL, kind, text);
    } else {
        img_findings_add(opaque, kind, text);
    }
}

static void print_human(const BdrvCheckResult *result)
{
    if (!result->corruptions && !result->leaks && !result->check_errors) {
        printf("No errors were found on the image.\n");
    } else {
        if (result->corruptions) {
            printf("\n%" PRId64 " errors were found on the image.\n"
                   "Data may be corrupted, or further writes to the image may corrupt it.\n",
                   result->corruptions);
        }
        if (result->leaks) {
            printf("\n%" PRId64 " leaked clusters were found on the image.\n"
                   "This means waste of disk space, but no harm to data.\n",
                   result->leaks);
        }
        if (result->check_errors) {
            printf("\n%" PRId64 " internal errors have occurred during the check.\n", result->check_errors);
        }
    }
    if (result->total_clusters && result->allocated_clusters) {
        double allocated = result->allocated_clusters;

        printf("%" PRId64 "/%" PRId64 " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
               result->allocated_clusters, result->total_clusters, allocated * 100 / result->total_clusters,
               result->fragmented_clusters * 100 / allocated, result->compressed_clusters * 100 / allocated);
    }
    if (result->image_end_offset > 0) {
        printf("Image end offset: %" PRId64 "\n", result->image_end_offset);
    }
}

static void set_unless_zero(BdrvOptions *object, const char *key, int64_t value)
{
    if (value) {
        bdrv_options_set_int(object, key, value);
    }
}

static void print_json(const Check *check, const BdrvCheckResult *result, const char *format)
{
    g_autoptr(BdrvOptions) object = bdrv_options_new();
    g_autofree char *text = NULL;

    /* The order is the one that qemu-img prints. */
    set_unless_zero(object, "image-end-offset", result->image_end_offset);
    set_unless_zero(object, "compressed-clusters", result->compressed_clusters);
    set_unless_zero(object, "total-clusters", result->total_clusters);
    set_unless_zero(object, "corruptions", result->corruptions);
    set_unless_zero(object, "corruptions-fixed", result->corruptions_fixed);
    bdrv_options_set_int(object, "check-errors", result->check_errors);
    set_unless_zero(object, "leaks", result->leaks);
    set_unless_zero(object, "leaks-fixed", result->leaks_fixed);
    set_unless_zero(object, "allocated-clusters", result->allocated_clusters);
    bdrv_options_set_string(object, "filename", check->look.image.filename);
    bdrv_options_set_string(object, "format", format);
    set_unless_zero(object, "fragmented-clusters", result->fragmented_clusters);
    if (check->dry_run) {
        bdrv_options_set_bool(object, "dry-run", true);
    }
    if (check->explain) {
        img_findings_to_json(check->found, object, "findings");
    }
    if (check->left) {
        img_findings_to_json(check->left, object, "findings-left");
    }
    text = img_json_text(object);
    printf("%s\n", text);
}

/* One check, or one repair; false with the exit code set. @findings: where to keep them, if they are to be explained */
static bool run_check(const Check *check, BlockBackend *blk, BdrvCheckResult *result, BdrvCheckFix fix,
                      ImgFindings *findings, int *status)
{
    GError *error = NULL;

    *result = (BdrvCheckResult){ .report = findings ? keep_finding : print_finding,
                                 .report_opaque = findings };
    if (blk_check(blk, result, fix, &error)) {
        return true;
    }
    if (bdrv_error_code(error) == ENOTSUP) {
        tool_error("This image format does not support checks");
        *status = EXIT_UNSUPPORTED;
    } else {
        tool_error("Check failed: %s", error->message);
        *status = EXIT_NOT_CHECKED;
    }
    g_error_free(error);
    return false;
}

/* After a repair that did something: say what, and look again. */
static bool check_again(Check *check, BlockBackend *blk, BdrvCheckResult *result, int *status)
{
    int64_t leaks_fixed = result->leaks_fixed, corruptions_fixed = result->corruptions_fixed;

    if (is_human(check)) {
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRId64 " leaked clusters\n    %" PRId64 " corruptions\n\n"
               "Double checking the fixed image now...\n",
               leaks_fixed, corruptions_fixed);
    }
    check->left = check->explain ? img_findings_new() : NULL;
    if (!run_check(check, blk, result, BDRV_FIX_NONE, check->left, status)) {
        return false;
    }
    result->leaks_fixed = leaks_fixed;
    result->corruptions_fixed = corruptions_fixed;
    return true;
}

static void print_dry_run(const BdrvCheckResult *result)
{
    printf("Dry run: nothing was changed. A repair would repair\n\n"
           "    %" PRId64 " leaked clusters\n    %" PRId64 " corruptions\n\nand leave\n\n"
           "    %" PRId64 " leaked clusters\n    %" PRId64 " corruptions\n",
           result->leaks_fixed, result->corruptions_fixed, result->leaks, result->corruptions);
}

static void print_result(const Check *check, const BdrvCheckResult *result, const char *format)
{
    if (!is_human(check)) {
        if (!check->quiet) {
            print_json(check, result, format);
        }
        return;
    }
    if (check->dry_run) {
        print_dry_run(result);
    } else {
        print_human(result);
    }
    if (check->explain) {
        img_findings_print(check->found);
    }
    if (check->left && (result->corruptions || result->leaks || result->check_errors)) {
        printf("\nLeft after the repair:\n");
        img_findings_print(check->left);
    }
}

static int check_image(Check *check, BlockBackend *blk)
{
    BdrvCheckResult result;
    int status;

    if (!run_check(check, blk, &result, check->fix, check->found, &status)) {
        return status;
    }
    bool repaired = (result.leaks_fixed || result.corruptions_fixed) && !check->dry_run;
    if (repaired && !check_again(check, blk, &result, &status)) {
        return status;
    }
    print_result(check, &result, blk_driver(blk));
    if (result.check_errors) {
        return EXIT_NOT_CHECKED;
    }
    if (result.corruptions) {
        return EXIT_CORRUPT;
    }
    return result.leaks ? EXIT_LEAKS : EXIT_CLEAN;
}

/* -1: go on; else the exit code */
static int take_option(Check *check, int option)
{
    switch (option) {
    case 'q': check->quiet = true; return -1;
    case 'r':
        if (strcmp(optarg, "leaks") == 0) {
            check->fix = BDRV_FIX_LEAKS;
        } else if (strcmp(optarg, "all") == 0) {
            check->fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
        } else {
            return img_usage_error("--repair (-r) expects one of leaks or all, not '%s'", optarg);
        }
        return -1;
    case 'T': check->cache = optarg; return -1;
    case IMG_OPTION_DRY_RUN: check->dry_run = true; return -1;
    case IMG_OPTION_EXPLAIN: check->explain = true; return -1;
    default: return img_look_option(&check->look, option);
    }
}

int img_check(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = NULL;
    Check check = { .look.image.flags = BDRV_O_CHECK };
    BlockBackend *blk;
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        status = take_option(&check, option);
        if (status >= 0) {
            return status;
        }
    }
    if (!img_look_filename(&check.look, argc, argv) ||
        !img_take_cache(check.cache, "source cache mode", &check.look.image.flags)) {
        return 1;
    }
    if (check.dry_run && check.fix == BDRV_FIX_NONE) {
        return img_usage_error("--dry-run needs -r: a check without it changes nothing");
    }
    check.fix |= check.dry_run ? BDRV_FIX_DRY_RUN : 0;
    if (check.fix != BDRV_FIX_NONE && !check.dry_run) {
        check.look.image.flags |= BDRV_O_RDWR;
    }
    graph = tool_graph();
    blk = img_open(graph, &check.look.image);
    if (!blk) {
        return EXIT_NOT_CHECKED;
    }
    check.found = check.explain ? img_findings_new() : NULL;
    status = check_image(&check, blk);
    img_findings_free(check.found);
    img_findings_free(check.left);
    img_close(blk, check.look.image.filename);
    return status;
}
