#include "files/pick.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command-line/table.h"
#include "partitions/partitions.h"
#include "repository/vm.h"
#include "util/text.h"

#define CHOICES_MAX 20 /* that are listed: the newest of many points */

/* One line from the terminal, without its end. NULL: there are no more. */
static char *ask(const char *question) {
        char *line = NULL;
        size_t room = 0;
        ssize_t length;

        fprintf(stderr, "%s ", question);
        fflush(stderr);
        length = getline(&line, &room, stdin);
        if (length < 0) {
                fputc('\n', stderr);
                free(line);
                return NULL;
        }
        line[strcspn(line, "\n")] = 0;
        return line;
}

/* A number from the list, or an item's name; nothing: the first. */
static const char *find_answer(const Strings *choices, const char *answer) {
        char *end;
        unsigned long number = strtoul(answer, &end, 10);

        if (!*answer)
                return choices->items[0];
        if (!*end && number >= 1 && number <= choices->count)
                return choices->items[number - 1];
        for (size_t i = 0; i < choices->count; i++)
                if (strcmp(choices->items[i], answer) == 0)
                        return choices->items[i];
        return NULL;
}

/* notes: what is said beside each; NULL: nothing. A single choice is no question. */
static const char *choose(const char *what, const Strings *choices, const Strings *notes) {
        const char *found = NULL;
        char question[64];

        if (choices->count == 1)
                return choices->items[0];
        for (size_t i = 0; i < choices->count && i < CHOICES_MAX; i++)
                fprintf(stderr, "%3zu  %s%s%s\n", i + 1, choices->items[i], notes ? "  " : "", notes ? notes->items[i] : "");
        if (choices->count > CHOICES_MAX)
                fprintf(stderr, "     … and %zu more, by their names\n", choices->count - CHOICES_MAX);
        snprintf(question, sizeof question, "%s [1]:", what);
        while (!found) {
                CLEANUP(freep) char *answer = ask(question);

                if (!answer)
                        return NULL;
                found = find_answer(choices, answer);
        }
        return found;
}

static int interrupted(Reason *reterr) {
        return fail(reterr, -ECANCELED, "nothing was chosen");
}

static int pick_vm(Repository *repository, Vm **ret, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        const char *name;
        int rc = repository_list_vms(repository, &names, reterr);

        if (rc < 0)
                return rc;
        if (names.count == 0)
                return fail(reterr, -ENOENT, "there is no VM in the repository");
        name = choose("VM", &names, NULL);
        return name ? vm_open(repository, name, ret, reterr) : interrupted(reterr);
}

/* The newest first. */
static int pick_point(Vm *vm, char **ret, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        const char *name;
        int rc = vm_list_points(vm, &names, reterr);

        if (rc < 0)
                return rc;
        if (names.count == 0)
                return fail(reterr, -ENOENT, "%s has no points yet", vm_name(vm));
        for (size_t i = 0; i < names.count / 2; i++) {
                char *other = names.items[i];

                names.items[i] = names.items[names.count - 1 - i];
                names.items[names.count - 1 - i] = other;
        }
        name = choose("Point", &names, NULL);
        if (!name)
                return interrupted(reterr);
        *ret = strdup(name);
        return *ret ? 0 : fail_oom(reterr);
}

static int add_choice(Strings *names, Strings *notes, const char *name, uint64_t size, const Filesystem *filesystem) {
        char note[256], size_text[SIZE_TEXT_MAX];

        if (!filesystem->type)
                return 0;
        size_format(size, size_text);
        snprintf(note, sizeof note, "%s %s%s%s", size_text, filesystem->type, filesystem->label ? " " : "",
                 filesystem->label ?: "");
        return strings_add(names, name) < 0 || strings_add(notes, note) < 0 ? -ENOMEM : 0;
}

static int add_disk(Vm *vm, const char *point, const ManifestDisk *disk, Strings *names, Strings *notes) {
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        char name[NAME_MAX + 1];
        int rc;

        if (partitions_find(vm, point, disk->name, &table, NULL) < 0)
                return 0; /* the others may be what is wanted */
        rc = add_choice(names, notes, disk->name, disk->size, &table->filesystem);
        for (size_t i = 0; rc >= 0 && i < table->count; i++) {
                if (!table->partitions[i].readable)
                        continue;
                partition_name(disk->name, &table->partitions[i], name, sizeof name);
                rc = add_choice(names, notes, name, table->partitions[i].size, &table->partitions[i].filesystem);
        }
        return rc;
}

/* "": all of them. */
static int pick_partition(Vm *vm, const char *point, char **ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(strings_free) Strings notes = { 0 };
        const char *name;
        int rc = manifest_read(vm, point, &manifest, reterr);

        if (rc < 0)
                return rc;
        if (strings_add(&names, "all") < 0 || strings_add(&notes, "of them") < 0)
                return fail_oom(reterr);
        for (size_t i = 0; rc >= 0 && i < manifest->disk_count; i++)
                rc = add_disk(vm, point, &manifest->disks[i], &names, &notes);
        if (rc < 0)
                return fail_oom(reterr);
        if (names.count == 1)
                return fail(reterr, -ENOENT, "%s/%s: no file system is known there", vm_name(vm), point);
        name = choose("Partition", &names, &notes);
        if (!name)
                return interrupted(reterr);
        *ret = strdup(name == names.items[0] ? "" : name);
        return *ret ? 0 : fail_oom(reterr);
}

static int pick_directory(const char *vm, char **ret, Reason *reterr) {
        CLEANUP(freep) char *proposal = NULL;
        CLEANUP(freep) char *question = NULL;
        char *answer;

        if (text_format(&proposal, "%s-files", vm) < 0 || text_format(&question, "Directory [%s]:", proposal) < 0)
                return fail_oom(reterr);
        answer = ask(question);
        if (!answer)
                return interrupted(reterr);
        if (!*answer) {
                free(answer);
                answer = STEAL_PTR(proposal);
        }
        *ret = answer;
        return 0;
}

int files_pick(char **ret_repository, char **ret_path, char **ret_directory, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        CLEANUP(freep) char *place = ask("Repository:");
        CLEANUP(freep) char *point = NULL;
        CLEANUP(freep) char *partition = NULL;
        CLEANUP(freep) char *path = NULL;
        int rc;

        if (!place || !*place)
                return interrupted(reterr);
        rc = repository_open(place, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc >= 0)
                rc = pick_vm(repository, &vm, reterr);
        if (rc >= 0)
                rc = pick_point(vm, &point, reterr);
        if (rc >= 0)
                rc = pick_partition(vm, point, &partition, reterr);
        if (rc < 0)
                return rc;
        if (text_format(&path, "%s/%s%s%s", vm_name(vm), point, *partition ? "/" : "", partition) < 0)
                return fail_oom(reterr);
        rc = pick_directory(vm_name(vm), ret_directory, reterr);
        if (rc < 0)
                return rc;
        *ret_repository = STEAL_PTR(place);
        *ret_path = STEAL_PTR(path);
        return 0;
}
