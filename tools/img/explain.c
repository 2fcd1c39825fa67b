/* SPDX-License-Identifier: MIT */
/* What a check has found, by kind: a few of each with the words that explain it, and how many more there are. */
#include <inttypes.h>

#include "tools/img/img.h"

/* Of each kind; a damaged image may have millions. */
#define EXAMPLES 10

typedef struct Group {
    const BdrvCheckKind *kind;
    int64_t count;
    GPtrArray *examples; /* char * */
} Group;

struct ImgFindings {
    GPtrArray *groups; /* in the order in which the kinds were met */
};

static void free_group(gpointer data)
{
    Group *group = data;

    g_ptr_array_unref(group->examples);
    g_free(group);
}

ImgFindings *img_findings_new(void)
{
    ImgFindings *findings = g_new(ImgFindings, 1);

    findings->groups = g_ptr_array_new_with_free_func(free_group);
    return findings;
}

void img_findings_free(ImgFindings *findings)
{
    if (findings) {
        g_ptr_array_unref(findings->groups);
        g_free(findings);
    }
}

static Group *group_of(ImgFindings *findings, const BdrvCheckKind *kind)
{
    for (guint i = 0; i < findings->groups->len; i++) {
        Group *group = findings->groups->pdata[i];
        if (group->kind == kind) {
            return group;
        }
    }
    Group *group = g_new0(Group, 1);
    group->kind = kind;
    group->examples = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(findings->groups, group);
    return group;
}

void img_findings_add(ImgFindings *findings, const BdrvCheckKind *kind, const char *text)
{
    Group *group = group_of(findings, kind);

    group->count++;
    if (group->examples->len < EXAMPLES) {
        g_ptr_array_add(group->examples, g_strdup(text));
    }
}

static const char *severity_name(BdrvCheckSeverity severity)
{
    return severity == BDRV_CHECK_LEAK ? "leak" : severity == BDRV_CHECK_CORRUPTION ? "corruption" : "check-error";
}

void img_findings_print(const ImgFindings *findings)
{
    for (guint i = 0; i < findings->groups->len; i++) {
        const Group *group = findings->groups->pdata[i];

        printf("\n%s (%s, %" PRId64 " found)\n    at risk: %s\n    repair:  %s\n", group->kind->title, group->kind->name,
               group->count, group->kind->risk, group->kind->repair);
        for (guint n = 0; n < group->examples->len; n++) {
            printf("    - %s\n", (const char *)group->examples->pdata[n]);
        }
        if (group->count > group->examples->len) {
            printf("    … and %" PRId64 " more of this kind\n", group->count - group->examples->len);
        }
    }
}

static void set_at(BdrvOptions *object, const char *prefix, const char *key, const char *value)
{
    g_autofree char *full = g_strdup_printf("%s.%s", prefix, key);

    bdrv_options_set_string(object, full, value);
}

void img_findings_to_json(const ImgFindings *findings, BdrvOptions *object, const char *key)
{
    if (findings->groups->len == 0) {
        bdrv_options_set_empty(object, key, BDRV_OPTION_LIST);
    }
    for (guint i = 0; i < findings->groups->len; i++) {
        const Group *group = findings->groups->pdata[i];
        g_autofree char *prefix = g_strdup_printf("%s.%u", key, i), *count = g_strconcat(prefix, ".count", NULL);

        set_at(object, prefix, "kind", group->kind->name);
        set_at(object, prefix, "severity", severity_name(group->kind->severity));
        bdrv_options_set_int(object, count, group->count);
        set_at(object, prefix, "title", group->kind->title);
        set_at(object, prefix, "risk", group->kind->risk);
        set_at(object, prefix, "repair", group->kind->repair);
        for (guint n = 0; n < group->examples->len; n++) {
            g_autofree char *example = g_strdup_printf("examples.%u", n);
            set_at(object, prefix, example, group->examples->pdata[n]);
        }
    }
}
