/* VMs and points made of what formats find. */
#include "repository/foreign/collection.h"
#include "random.h"
#include "unit.h"

#define UUID_A "0b7d4b0e-0000-4000-8000-00000000000a"
#define UUID_B "0b7d4b0e-0000-4000-8000-00000000000b"
#define NOON 1795176000 /* 2026-11-20T120000Z */

/* What a format would add; all of it belongs to one directory, whose path is at the front of keys and files. */
typedef struct Case {
        Findings findings;
        Collection *collection, *previous;
} Case;

static void case_clear(Case *c) {
        findings_clear(&c->findings);
        collection_unref(c->collection);
        collection_unref(c->previous);
}

static FoundLayer *layer_of(Case *c, const char *key, const char *disk, const char *parent, time_t moment) {
        const char *slash = strrchr(key, '/');
        char path[100], *point = strdup(key), *place = strndup(key, slash ? (size_t) (slash - key) : 0);
        FoundDirectory directory = { .path = place, .findings = &c->findings };
        FoundLayer layer = {
                .point = point, .parent = parent, .disk = disk, .kind = parent ? FOUND_INCREMENTAL : FOUND_FULL,
                .time = { moment, 0 }, .size = 1 << 20, .stored = 4096,
        };

        snprintf(path, sizeof path, "%s.%s.file", key, disk);
        layer.location = (LayerLocation) { "raw", path, NULL, 1 << 20, 7 };
        CHECK_INT(found_add_layer(&directory, &layer), 0);
        free(point);
        free(place);
        return &c->findings.layers[c->findings.layer_count - 1];
}

static void layer_names(FoundLayer *layer, const char *vm, const char *uuid) {
        layer->vm = vm ? strdup(vm) : NULL;
        layer->vm_uuid = uuid ? strdup(uuid) : NULL;
}

static void collect(Case *c) {
        c->previous = collection_unref(c->previous);
        c->previous = STEAL_PTR(c->collection);
        CHECK_INT(collection_new(&c->findings, "root", c->previous, &c->collection), 0);
}

static const ManifestDisk *disk_of(const Case *c, size_t vm, size_t point, size_t disk) {
        return &c->collection->vms[vm].points[point]->disks[disk];
}

static void a_chain_is_points_of_one_vm_in_the_order_of_time(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_names(layer_of(&c, "vm/2", "vda", "vm/1", NOON + 60), "web", UUID_A);
        layer_of(&c, "vm/1", "vda", NULL, NOON);
        layer_of(&c, "vm/1", "vdb", NULL, NOON);
        layer_of(&c, "vm/2", "vdb", "vm/1", NOON + 60);
        collect(&c);
        CHECK_INT(c.collection->count, 1);
        CHECK_TEXT(c.collection->vms[0].name, "web");
        CHECK_TEXT(c.collection->vms[0].uuid, UUID_A);
        CHECK_INT(c.collection->vms[0].count, 2);
        CHECK_TEXT(c.collection->vms[0].points[0]->name, "2026-11-20T120000Z");
        CHECK_TEXT(c.collection->vms[0].points[1]->name, "2026-11-20T120100Z");
        CHECK_TEXT(c.collection->vms[0].points[1]->parent, "2026-11-20T120000Z");
        CHECK_INT(c.collection->vms[0].points[0]->kind, POINT_FULL);
        CHECK_INT(c.collection->vms[0].points[1]->kind, POINT_INCREMENTAL);
        CHECK_INT(c.collection->vms[0].points[1]->disk_count, 2);
        CHECK(!disk_of(&c, 0, 1, 0)->problem && !disk_of(&c, 0, 1, 1)->problem);
        CHECK_TEXT(disk_of(&c, 0, 1, 0)->layers[0].file, "vm/2.vda.file");
}

static void a_child_older_than_its_parent_is_named_behind_it(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/3", "vda", "vm/2", NOON - 7200);
        layer_of(&c, "vm/2", "vda", "vm/1", NOON - 3600);
        layer_of(&c, "vm/1", "vda", NULL, NOON);
        collect(&c);
        CHECK_TEXT(c.collection->vms[0].points[0]->name, "2026-11-20T120000Z");
        CHECK_TEXT(c.collection->vms[0].points[1]->name, "2026-11-20T120000Z-02");
        CHECK_TEXT(c.collection->vms[0].points[2]->name, "2026-11-20T120000Z-03");
        CHECK_INT(c.collection->vms[0].points[2]->time.tv_sec, NOON - 7200);
        CHECK_TEXT(c.collection->vms[0].points[2]->parent, "2026-11-20T120000Z-02");
}

static void times_that_no_calendar_has_are_moved_to_its_ends(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", NULL, -5000);
        layer_of(&c, "vm/2", "vda", NULL, INT64_MAX);
        layer_of(&c, "vm/3", "vda", "vm/2", INT64_MAX);
        collect(&c);
        CHECK_TEXT(c.collection->vms[0].points[0]->name, "1970-01-01T000000Z");
        CHECK_TEXT(c.collection->vms[0].points[2]->parent, c.collection->vms[0].points[1]->name);
}

static void a_lost_parent_is_the_childs_problem_alone(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", NULL, NOON);
        layer_of(&c, "vm/3", "vda", "vm/2", NOON + 2);
        layer_of(&c, "vm/4", "vda", "vm/3", NOON + 3);
        collect(&c);
        CHECK_INT(c.collection->count, 1);
        CHECK(!disk_of(&c, 0, 0, 0)->problem);
        CHECK_TEXT(disk_of(&c, 0, 1, 0)->problem, "the backup that it continues (vm/2) is not there");
        CHECK_INT(disk_of(&c, 0, 1, 0)->layer_count, 1);
        CHECK(!c.collection->vms[0].points[1]->parent);
        CHECK(!disk_of(&c, 0, 2, 0)->problem); /* its ancestor's; the lineage tells */
}

static void a_loop_ends_and_is_told(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", "vm/3", NOON);
        layer_of(&c, "vm/2", "vda", "vm/1", NOON + 1);
        layer_of(&c, "vm/3", "vda", "vm/2", NOON + 2);
        layer_of(&c, "vm/4", "vda", "vm/3", NOON + 3);
        layer_of(&c, "vm/5", "vda", "vm/5", NOON + 4);
        layer_of(&c, "vm/6", "vda", NULL, NOON + 5);
        collect(&c);
        CHECK_INT(c.collection->count, 1);
        CHECK_INT(c.collection->vms[0].count, 6);
        for (size_t i = 0; i < 3; i++)
                CHECK_TEXT(disk_of(&c, 0, i, 0)->problem, "its ancestors lead back to itself");
        CHECK_TEXT(c.collection->vms[0].points[3]->parent, c.collection->vms[0].points[2]->name);
        CHECK_TEXT(disk_of(&c, 0, 4, 0)->problem, "its ancestors lead back to itself");
        CHECK(!disk_of(&c, 0, 5, 0)->problem);
}

static void two_layers_for_one_disk_are_no_layer(void) {
        CLEANUP(case_clear) Case c = { 0 };
        FoundLayer *second;

        layer_of(&c, "vm/1", "vda", NULL, NOON);
        second = layer_of(&c, "vm/1", "vda", NULL, NOON);
        free((char *) second->location.path);
        second->location.path = strdup("vm/copy");
        layer_of(&c, "vm/1", "vdb", NULL, NOON);
        collect(&c);
        CHECK_INT(c.collection->vms[0].points[0]->disk_count, 2);
        CHECK_TEXT(disk_of(&c, 0, 0, 0)->problem, "two files hold it: vm/1.vda.file and vm/copy");
        CHECK_INT(disk_of(&c, 0, 0, 0)->layer_count, 0);
        CHECK(!disk_of(&c, 0, 0, 1)->problem);
}

static void what_a_format_cannot_use_is_in_the_point_with_its_reason(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", NULL, NOON)->problem = strdup("it was not finished");
        layer_of(&c, "vm/1", "vdb", NULL, NOON)->note = strdup("trimmed ranges may be stale");
        collect(&c);
        CHECK_TEXT(disk_of(&c, 0, 0, 0)->problem, "it was not finished");
        CHECK_TEXT(disk_of(&c, 0, 0, 1)->note, "trimmed ranges may be stale");
}

static void one_vm_lies_in_several_directories(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_names(layer_of(&c, "january/1", "vda", NULL, NOON), "web", UUID_A);
        layer_names(layer_of(&c, "february/1", "vda", NULL, NOON + 1), "web-renamed", UUID_A);
        layer_names(layer_of(&c, "march/1", "vda", NULL, NOON + 2), "web", NULL);
        layer_names(layer_of(&c, "db/1", "vda", NULL, NOON + 2), "db", UUID_B);
        collect(&c);
        CHECK_INT(c.collection->count, 2);
        CHECK_TEXT(c.collection->vms[0].name, "db");
        CHECK_INT(c.collection->vms[1].count, 3);
        CHECK_TEXT(c.collection->vms[1].uuid, UUID_A);
}

static void what_names_nothing_is_named_by_its_directory(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "a/vm1/1", "vda", NULL, NOON);
        layer_of(&c, "a/vm1/2", "vda", NULL, NOON + 1);
        layer_of(&c, "a/vm2/1", "vda", NULL, NOON);
        layer_of(&c, "1", "vda", NULL, NOON);
        collect(&c);
        CHECK_INT(c.collection->count, 3);
        CHECK_TEXT(c.collection->vms[0].name, "root");
        CHECK_TEXT(c.collection->vms[1].name, "vm1");
        CHECK_INT(c.collection->vms[1].count, 2);
        CHECK(!c.collection->vms[1].has_uuid);
}

static void two_vms_of_one_name_have_names_of_their_own(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_names(layer_of(&c, "a/1", "vda", NULL, NOON), "web", UUID_A);
        layer_names(layer_of(&c, "b/1", "vda", NULL, NOON), "web", "1b7d4b0e-0000-4000-8000-00000000000a");
        layer_of(&c, "x/db/1", "vda", NULL, NOON);
        layer_of(&c, "y/db/1", "vda", NULL, NOON);
        layer_of(&c, "y-db/1", "vda", NULL, NOON);
        collect(&c);
        CHECK_INT(c.collection->count, 5);
        CHECK_TEXT(c.collection->vms[0].name, "web-0b7d4b0e");
        CHECK_TEXT(c.collection->vms[1].name, "web-1b7d4b0e");
        CHECK_TEXT(c.collection->vms[2].name, "x-db");
        CHECK_TEXT(c.collection->vms[3].name, "y-db");
        CHECK_TEXT(c.collection->vms[4].name, "y-db-2");
}

static void a_name_that_backups_say_is_kept_whatever_directories_are_called(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "web/1", "vda", NULL, NOON);
        layer_names(layer_of(&c, "a/1", "vda", NULL, NOON), "web", UUID_A);
        layer_of(&c, "old/web/1", "vda", NULL, NOON);
        collect(&c);
        CHECK_INT(c.collection->count, 3);
        CHECK_TEXT(c.collection->vms[0].name, "old-web");
        CHECK_TEXT(c.collection->vms[1].name, "web");
        CHECK_TEXT(c.collection->vms[1].uuid, UUID_A);
        CHECK_TEXT(c.collection->vms[2].name, "web-2");
}

static void hostile_names_become_harmless(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_names(layer_of(&c, "vm/1", "../../etc", NULL, NOON), "../-\n\xff", "no uuid");
        layer_of(&c, "vm/1", "..//../etc", NULL, NOON);
        layer_of(&c, "vm/1", "", NULL, NOON);
        collect(&c);
        CHECK_TEXT(c.collection->vms[0].name, "_._-_");
        CHECK(!c.collection->vms[0].has_uuid);
        CHECK_INT(c.collection->vms[0].points[0]->disk_count, 3);
        for (size_t i = 0; i < 3; i++) {
                CHECK(file_name_is_valid(disk_of(&c, 0, 0, i)->name));
                for (size_t j = 0; j < i; j++)
                        CHECK(strcmp(disk_of(&c, 0, 0, i)->name, disk_of(&c, 0, 0, j)->name) != 0);
        }
}

static void a_point_of_kept_files_alone_is_shown_with_their_time(void) {
        CLEANUP(case_clear) Case c = { 0 };
        FoundDirectory directory = { .path = "vm", .findings = &c.findings };
        FoundKept kept = {
                "vm/1", "domain.xml", 100, { .tv_sec = 1700000000 }, { "raw", "vm/vmconfig.1.xml", NULL, 100, 5 },
        };

        CHECK_INT(found_add_kept(&directory, &kept), 0);
        kept.time.tv_sec++;
        CHECK_INT(found_add_kept(&directory, &kept), 0);
        collect(&c);
        CHECK_INT(c.collection->vms[0].points[0]->time.tv_sec, 1700000001);
        CHECK_TEXT(c.collection->vms[0].points[0]->name, "2023-11-14T221321Z");
        CHECK_INT(c.collection->vms[0].points[0]->disk_count, 0);
        CHECK_INT(c.collection->vms[0].points[0]->file_count, 1);
        CHECK_TEXT(c.collection->vms[0].points[0]->files[0].file, "vm/vmconfig.1.xml");
}

static void what_a_disk_holds_at_most_is_known_where_all_that_it_rests_on_tells(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", NULL, NOON)->data = 1000;
        layer_of(&c, "vm/2", "vda", "vm/1", NOON + 1)->data = 10;
        layer_of(&c, "vm/3", "vda", "vm/2", NOON + 2);
        layer_of(&c, "vm/4", "vda", "vm/3", NOON + 3)->data = 10;
        layer_of(&c, "vm/5", "vda", NULL, NOON + 4)->data = UINT64_MAX;
        layer_of(&c, "vm/6", "vda", "vm/5", NOON + 5)->data = UINT64_MAX;
        layer_of(&c, "vm/7", "vda", "vm/lost", NOON + 6)->data = 10;
        collect(&c);
        CHECK_INT(c.collection->vms[0].count, 7);
        CHECK_INT(disk_of(&c, 0, 0, 0)->data, 1000);
        CHECK_INT(disk_of(&c, 0, 1, 0)->data, 1010);
        CHECK_INT(disk_of(&c, 0, 2, 0)->data, 0);
        CHECK_INT(disk_of(&c, 0, 3, 0)->data, 0);
        CHECK_INT(disk_of(&c, 0, 5, 0)->data, INT64_MAX);
        CHECK_INT(disk_of(&c, 0, 6, 0)->data, 0);
}

static void a_disk_that_continues_another_backup_has_all_layers_that_it_rests_on(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", NULL, NOON);
        layer_of(&c, "vm/2", "vdb", NULL, NOON + 1);
        layer_of(&c, "vm/3", "vda", "vm/1", NOON + 2);
        layer_of(&c, "vm/3", "vdb", "vm/2", NOON + 2);
        collect(&c);
        CHECK_INT(c.collection->count, 1);
        CHECK_INT(c.collection->vms[0].count, 3);
        CHECK_TEXT(c.collection->vms[0].points[2]->parent, c.collection->vms[0].points[1]->name);
        CHECK_INT(c.collection->vms[0].points[2]->kind, POINT_INCREMENTAL);
        CHECK(!disk_of(&c, 0, 2, 0)->problem && !disk_of(&c, 0, 2, 1)->problem);
        CHECK_INT(disk_of(&c, 0, 2, 0)->kind, POINT_FULL);
        CHECK_INT(disk_of(&c, 0, 2, 0)->layer_count, 2);
        CHECK_TEXT(disk_of(&c, 0, 2, 0)->layers[0].file, "vm/3.vda.file");
        CHECK_TEXT(disk_of(&c, 0, 2, 0)->layers[1].file, "vm/1.vda.file");
        CHECK_INT(disk_of(&c, 0, 2, 1)->kind, POINT_INCREMENTAL);
        CHECK_INT(disk_of(&c, 0, 2, 1)->layer_count, 1);
}

static void what_it_rests_on_has_to_be_there_and_good(void) {
        CLEANUP(case_clear) Case c = { 0 };

        for (int i = 0; i < 4; i++) { /* chains of two, and then a point whose other disk continues a later backup */
                char base[20], middle[20], other[20], last[20];

                snprintf(base, sizeof base, "vm%d/1", i);
                snprintf(middle, sizeof middle, "vm%d/2", i);
                snprintf(other, sizeof other, "vm%d/3", i);
                snprintf(last, sizeof last, "vm%d/4", i);
                if (i != 0)
                        layer_of(&c, base, "vda", NULL, NOON);
                if (i == 1)
                        layer_of(&c, base, "vda", NULL, NOON)->location.seal++;
                layer_of(&c, middle, "vda", base, NOON + 1);
                if (i == 2)
                        c.findings.layers[c.findings.layer_count - 1].problem = strdup("it is cut");
                if (i == 3)
                        c.findings.layers[c.findings.layer_count - 1].size = 1 << 19;
                layer_of(&c, other, "vdb", NULL, NOON + 2);
                layer_of(&c, last, "vda", middle, NOON + 3);
                layer_of(&c, last, "vdb", other, NOON + 3);
        }
        collect(&c);
        CHECK_INT(c.collection->count, 4);
        CHECK_TEXT(disk_of(&c, 0, 2, 0)->problem, "the backup that it continues (vm0/1) is not there");
        CHECK_TEXT(disk_of(&c, 1, 3, 0)->problem, "the backup that it continues (vm1/1): it has not one layer of this disk");
        CHECK_TEXT(disk_of(&c, 2, 3, 0)->problem, "the backup that it continues (vm2/2): it is cut");
        CHECK(strstr(disk_of(&c, 3, 3, 0)->problem, "the backup that it continues (vm3/2) is of another size"));
        for (size_t i = 0; i < 4; i++)
                CHECK(!disk_of(&c, i, i == 0 ? 2 : 3, 1)->problem);
}

static void what_stays_the_same_keeps_its_number_and_its_manifest(void) {
        CLEANUP(case_clear) Case c = { 0 };
        const CollectedVm *before, *now;

        for (int i = 0; i < 3000; i++) { /* some of whose numbers would be the same */
                char key[20];

                snprintf(key, sizeof key, "vm/%d", i);
                layer_of(&c, key, "vda", NULL, NOON + 2 * i);
        }
        collect(&c);
        layer_of(&c, "vm/late", "vda", NULL, NOON + 6001);
        layer_of(&c, "vm/early", "vda", NULL, NOON + 1);
        collect(&c);
        before = &c.previous->vms[0];
        now = &c.collection->vms[0];
        CHECK_INT(now->count, 3002);
        CHECK_INT(now->serial, before->serial);
        for (size_t i = 0; i < before->count; i++) {
                CHECK(collected_vm_find(now, before->points[i]->name) == before->points[i]);
                CHECK(collected_vm_find_serial(now, before->points[i]->serial) == before->points[i]);
                CHECK(before->points[i]->serial > SERIAL_MAX);
        }
}

static void numbers_are_the_same_whenever_it_is_looked(void) {
        CLEANUP(case_clear) Case c = { 0 }, d = { 0 };

        for (int i = 0; i < 3000; i++) {
                char key[20], other[20];

                snprintf(key, sizeof key, "vm/%d", i);
                layer_of(&c, key, "vda", NULL, NOON + i);
                snprintf(other, sizeof other, "vm/%d", 2999 - i);
                layer_of(&d, other, "vda", NULL, NOON + 2999 - i);
        }
        collect(&c);
        collect(&d);
        for (size_t i = 0; i < 3000; i++)
                CHECK_INT(c.collection->vms[0].points[i]->serial, d.collection->vms[0].points[i]->serial);
}

static void a_point_whose_ancestor_became_another_is_another(void) {
        CLEANUP(case_clear) Case c = { 0 };

        layer_of(&c, "vm/1", "vda", NULL, NOON);
        layer_of(&c, "vm/2", "vda", "vm/1", NOON + 1);
        layer_of(&c, "vm/3", "vda", NULL, NOON + 2);
        collect(&c);
        c.findings.layers[0].location.seal++;
        collect(&c);
        CHECK(strcmp(c.previous->vms[0].points[1]->capture, c.collection->vms[0].points[1]->capture) != 0);
        CHECK(c.previous->vms[0].points[2] == c.collection->vms[0].points[2]);
}

static const char *pick(const char *const *words, size_t count) {
        return words[random_below(count)];
}

/* Layers of few names, so that all sorts of links, doubles and loops come up. */
static void add_random_layers(Case *c, size_t count) {
        static const char *const vms[] = { "web", "db", "../x", "", NULL, NULL };
        static const char *const uuids[] = { UUID_A, UUID_B, "no uuid", NULL, NULL, NULL };
        static const char *const disks[] = { "vda", "vdb", "v/da", "v_da", "" };
        FoundDirectory directory = { .path = "", .findings = &c->findings };

        for (size_t i = 0; i < count; i++) {
                char key[20], parent[20], path[30];
                FoundLayer layer = {
                        .vm = pick(vms, 6), .vm_uuid = pick(uuids, 6), .point = key, .disk = pick(disks, 5),
                        .parent = random_below(3) ? parent : NULL, .kind = (FoundKind) random_below(3),
                        .time = { (time_t) (random_below(8) ? NOON + random_below(50) : random_u64()), 0 },
                        .problem = random_below(9) ? NULL : "it is cut", .size = random_below(5) ? 1 << 20 : random_u64(),
                };
                FoundKept kept = { .point = key, .name = pick(disks, 5) };

                snprintf(key, sizeof key, "d%u/%u", (unsigned) random_below(3), (unsigned) random_below(12));
                snprintf(parent, sizeof parent, "d%u/%u", (unsigned) random_below(3), (unsigned) random_below(12));
                snprintf(path, sizeof path, "d%u/%zu", (unsigned) random_below(3), i);
                layer.location = kept.location = (LayerLocation) { "raw", path, NULL, 1, random_u64() };
                CHECK_INT(random_below(6) ? found_add_layer(&directory, &layer) : found_add_kept(&directory, &kept), 0);
        }
}

static void check_vm(const CollectedVm *vm) {
        CHECK(vm_name_is_valid(vm->name) && vm_uuid_is_valid(vm->uuid) && vm->serial > SERIAL_MAX && vm->count > 0);
        for (size_t i = 0; i < vm->count; i++) {
                const Manifest *m = vm->points[i];

                CHECK(point_name_is_valid(m->name) && m->serial > SERIAL_MAX);
                CHECK(i == 0 || strcmp(vm->points[i - 1]->name, m->name) < 0);
                CHECK(collected_vm_find_serial(vm, m->serial) == m && collected_vm_find(vm, m->name) == m);
                CHECK(!m->parent || (strcmp(m->parent, m->name) < 0 && collected_vm_find(vm, m->parent)));
                CHECK_TEXT(m->vm, vm->name);
                for (size_t j = 0; j < m->disk_count; j++) {
                        const ManifestDisk *disk = &m->disks[j];

                        CHECK(file_name_is_valid(disk->name) && manifest_find_disk(m, disk->name) == disk);
                        CHECK(disk->problem || disk->layer_count > 0);
                        CHECK(disk->kind == POINT_FULL || disk->kind == m->kind);
                        CHECK(disk->problem || disk->kind == POINT_FULL || m->parent);
                }
                for (size_t j = 0; j < m->file_count; j++)
                        CHECK(file_name_is_valid(m->files[j].name) &&
                              manifest_find_file(m, m->files[j].name) == &m->files[j]);
        }
}

static void whatever_is_found_makes_sense(void) {
        for (int round = 0; round < 3000; round++) {
                CLEANUP(case_clear) Case c = { 0 };
                size_t points = 0;

                for (int look = 0; look < 2; look++) {
                        add_random_layers(&c, 1 + random_below(25));
                        collect(&c);
                        for (size_t i = 0; i < c.collection->count; i++) {
                                CHECK(i == 0 || strcmp(c.collection->vms[i - 1].name, c.collection->vms[i].name) < 0);
                                CHECK(collection_find_serial(c.collection,
                                                             c.collection->vms[i].serial) == &c.collection->vms[i]);
                                check_vm(&c.collection->vms[i]);
                                points += c.collection->vms[i].count;
                        }
                }
                CHECK(points > 0);
        }
}

int main(void) {
        RUN(a_chain_is_points_of_one_vm_in_the_order_of_time);
        RUN(a_child_older_than_its_parent_is_named_behind_it);
        RUN(times_that_no_calendar_has_are_moved_to_its_ends);
        RUN(a_lost_parent_is_the_childs_problem_alone);
        RUN(a_loop_ends_and_is_told);
        RUN(two_layers_for_one_disk_are_no_layer);
        RUN(what_a_format_cannot_use_is_in_the_point_with_its_reason);
        RUN(one_vm_lies_in_several_directories);
        RUN(what_names_nothing_is_named_by_its_directory);
        RUN(two_vms_of_one_name_have_names_of_their_own);
        RUN(a_name_that_backups_say_is_kept_whatever_directories_are_called);
        RUN(hostile_names_become_harmless);
        RUN(a_point_of_kept_files_alone_is_shown_with_their_time);
        RUN(what_a_disk_holds_at_most_is_known_where_all_that_it_rests_on_tells);
        RUN(a_disk_that_continues_another_backup_has_all_layers_that_it_rests_on);
        RUN(what_it_rests_on_has_to_be_there_and_good);
        RUN(what_stays_the_same_keeps_its_number_and_its_manifest);
        RUN(numbers_are_the_same_whenever_it_is_looked);
        RUN(a_point_whose_ancestor_became_another_is_another);
        RUN(whatever_is_found_makes_sense);
        return unit_result();
}
