#include "repository/foreign/names.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "repository/vm.h"
#include "util/cleanup.h"
#include "util/text.h"

#define UUID_SHOWN 8 /* digits that tell two VMs of one name apart */

char *name_clean(const char *text, size_t max) {
        char *name = strndup(*text ? text : "_", max);

        if (!name)
                return NULL;
        for (unsigned char *c = (unsigned char *) name; *c; c++)
                if (*c < ' ' || *c == 0x7f || *c == '/')
                        *c = '_';
        if (*name == '.' || *name == '-')
                *name = '_';
        /* A character that was cut at the end. */
        for (unsigned cut = 0; cut < 3 && !file_name_is_valid(name) && (name[strlen(name) - 1] & 0x80); cut++)
                name[strlen(name) - 1] = 0;
        if (!file_name_is_valid(name))
                for (unsigned char *c = (unsigned char *) name; *c; c++)
                        if (*c >= 0x80)
                                *c = '_';
        return name;
}

static int compare_places(const void *a, const void *b) {
        char *const *left = *(char **const *) a, *const *right = *(char **const *) b;
        int order = strcmp(*left, *right);

        return order ?: (left > right) - (left < right); /* the first in memory keeps its name */
}

static int compare_texts(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The name with the next number that makes no name of those before. Nothing is cut off, so that two names with numbers
 * differ. */
static int number_one(char **name, char *const *before, size_t count, size_t *number) {
        for (;; ++*number) {
                char *text;

                if (text_format(&text, "%s-%zu", *name, *number) < 0)
                        return -ENOMEM;
                if (!bsearch(&text, before, count, sizeof *before, compare_texts)) {
                        *name = text;
                        ++*number;
                        return 0;
                }
                free(text);
        }
}

int names_number_doubles(char ***names, size_t count) {
        CLEANUP(freep) char **before = calloc(count + 1, sizeof *before); /* as they were, sorted */
        CLEANUP(freep) bool *replaced = calloc(count + 1, sizeof *replaced);
        size_t number = 2; /* for the next of a run of equal names */
        int rc = 0;

        if (!before || !replaced)
                return -ENOMEM;
        qsort(names, count, sizeof *names, compare_places);
        for (size_t i = 0; i < count; i++)
                before[i] = *names[i];
        for (size_t i = 1; rc == 0 && i < count; i++) {
                if (strcmp(before[i - 1], before[i]) != 0) {
                        number = 2;
                        continue;
                }
                rc = number_one(names[i], before, count, &number);
                replaced[i] = rc == 0;
        }
        for (size_t i = 0; i < count; i++)
                if (replaced[i])
                        free(before[i]);
        return rc;
}

/* Its backups name it; else its directory does. */
static bool is_said(const GroupVm *vm) {
        return vm->name && *vm->name;
}

static char *plain_name(const GroupVm *vm, const char *root_name) {
        const char *slash = strrchr(vm->directory, '/');

        if (is_said(vm))
                return name_clean(vm->name, VM_NAME_MAX);
        return name_clean(slash ? slash + 1 : *vm->directory ? vm->directory : root_name, VM_NAME_MAX);
}

/* With what tells it from others of that name: the UUID, else the directory. */
static char *long_name(const GroupVm *vm, const char *plain) {
        CLEANUP(freep) char *text = NULL;
        CLEANUP(freep) char *directory = strdup(vm->directory);
        int rc;

        if (!directory)
                return NULL;
        for (char *c = directory; *c; c++)
                if (*c == '/')
                        *c = '-';
        if (vm->uuid)
                rc = text_format(&text, "%.*s-%.*s", VM_NAME_MAX - UUID_SHOWN - 1, plain, UUID_SHOWN, vm->uuid);
        else if (vm->name && *directory)
                rc = text_format(&text, "%.*s-%s", VM_NAME_MAX / 2, plain, directory);
        else
                rc = text_format(&text, "%s", *directory ? directory : plain);
        return rc < 0 ? NULL : name_clean(text, VM_NAME_MAX);
}

typedef struct Sorting {
        const Groups *groups;
        char **names;
} Sorting;

static int compare(const void *a, const void *b, void *context) {
        const Sorting *sorting = context;
        size_t left = *(const size_t *) a, right = *(const size_t *) b;
        const GroupVm *one = &sorting->groups->vms[left], *other = &sorting->groups->vms[right];
        int order = strcmp(sorting->names[left], sorting->names[right]);

        if (order == 0)
                order = (int) is_said(other) - (int) is_said(one);
        if (order == 0)
                order = strcasecmp(one->uuid ?: "", other->uuid ?: "");
        return order ?: strcmp(one->directory, other->directory);
}

static bool is_taken(char *const *names, size_t count, size_t but, const char *name) {
        for (size_t i = 0; i < count; i++)
                if (i != but && strcmp(names[i], name) == 0)
                        return true;
        return false;
}

/* Where all else is the same: a number. */
static int number_name(char **names, size_t count, size_t index) {
        for (unsigned number = 2;; number++) {
                CLEANUP(freep) char *text = NULL;

                if (text_format(&text, "%.*s-%u", VM_NAME_MAX - 12, names[index], number) < 0)
                        return -ENOMEM;
                if (!is_taken(names, count, index, text)) {
                        free(names[index]);
                        names[index] = STEAL_PTR(text);
                        return 0;
                }
        }
}

/* Calls change for each that has a name of another, but for the first of them where that may keep it: always, or if its
 * backups alone say so. */
static int change_doubles(const Groups *groups, char **names, bool first_keeps,
                          int (*change)(const Groups *groups, char **names, size_t index)) {
        CLEANUP(freep) size_t *list = calloc(groups->vm_count + 1, sizeof *list);
        CLEANUP(freep) bool *doubled = calloc(groups->vm_count + 1, sizeof *doubled);
        Sorting sorting = { groups, names };
        int rc = 0;

        if (!list || !doubled)
                return -ENOMEM;
        for (size_t i = 0; i < groups->vm_count; i++)
                list[i] = i;
        qsort_r(list, groups->vm_count, sizeof *list, compare, &sorting);
        for (size_t i = 1; i < groups->vm_count; i++) {
                const GroupVm *before = &groups->vms[list[i - 1]], *vm = &groups->vms[list[i]];

                if (strcmp(names[list[i - 1]], names[list[i]]) != 0)
                        continue;
                doubled[list[i]] = true;
                doubled[list[i - 1]] |= !first_keeps && is_said(before) == is_said(vm);
        }
        for (size_t i = 0; rc == 0 && i < groups->vm_count; i++)
                if (doubled[list[i]])
                        rc = change(groups, names, list[i]);
        return rc;
}

static int make_longer(const Groups *groups, char **names, size_t index) {
        char *name = long_name(&groups->vms[index], names[index]);

        if (!name)
                return -ENOMEM;
        free(names[index]);
        names[index] = name;
        return 0;
}

static int add_number(const Groups *groups, char **names, size_t index) {
        return number_name(names, groups->vm_count, index);
}

int names_of_vms(const Groups *groups, const char *root_name, char **ret) {
        int rc;

        for (size_t i = 0; i < groups->vm_count; i++) {
                ret[i] = plain_name(&groups->vms[i], root_name);
                if (!ret[i])
                        return -ENOMEM;
        }
        rc = change_doubles(groups, ret, false, make_longer);
        return rc < 0 ? rc : change_doubles(groups, ret, true, add_number);
}
