#include "repository/manifest.h"

#include <errno.h>

#include "codec/checksum.h"
#include "formats/layer.h"
#include "repository-fixture.h"
#include "util/file.h"
#include "util/sealed-json.h"

#define NAME "2026-11-20T010203Z"
#define PATH "points/" NAME ".json"

static const char *const two_disks[] = { "vda", "vdb" };

static void what_was_committed_is_read_again(void) {
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(NAME, "2026-11-19T010203Z", 3, two_disks, 2), *again = NULL;
        CLEANUP(freep) char *path = NULL;
        LayerLocation location;
        Reason reason = REASON_INIT;

        m->disks[1].why = strdup("its image is another one");
        m->disks[1].kind = POINT_FULL;
        CHECK_INT(manifest_commit(f.vm, m, &reason), 0);
        CHECK_INT(manifest_commit(f.vm, m, &reason), -EEXIST);
        CHECK_INT(manifest_read(f.vm, NAME, &again, &reason), 0);
        CHECK_TEXT(again->name, NAME);
        CHECK_TEXT(again->vm, "vm1");
        CHECK_TEXT(again->vm_uuid, FIXTURE_UUID);
        CHECK_TEXT(again->capture, NAME ".9f3c21aa");
        CHECK_TEXT(again->parent, "2026-11-19T010203Z");
        CHECK_TEXT(again->checkpoint, "virtbackupfs-1");
        CHECK_INT(again->serial, 3);
        CHECK_INT(again->kind, POINT_INCREMENTAL);
        CHECK_INT(again->time.tv_sec, m->time.tv_sec);
        CHECK_INT(again->time.tv_nsec, 5);
        CHECK_INT(again->disk_count, 2);
        CHECK_TEXT(again->disks[1].why, "its image is another one");
        CHECK(!again->disks[0].why);
        CHECK_INT(again->disks[0].size, 1000001);
        CHECK_TEXT(again->disks[0].images.items[0], "/images/ä.qcow2 1:2");
        CHECK(again->disks[0].layers[0].seal == 0xfedcba9876543210);
        CHECK_INT(manifest_stored(again), 2 * 777);
        CHECK(manifest_find_disk(again, "vdb") == &again->disks[1]);
        CHECK(!manifest_find_disk(again, "vdc"));
        CHECK_INT(manifest_layer_location(again, &again->disks[0].layers[0], &location, &reason), 0);
        path = (char *) location.path;
        CHECK_TEXT(path, "vms/vm1/data/" NAME ".9f3c21aa/vda.layer");
        CHECK_INT(manifest_read(f.vm, "2026-11-20T010204Z", &again, &reason), -ENOENT);
        CHECK_INT(manifest_read(f.vm, "../vm", &again, &reason), -ENOENT);
}

static void every_flipped_bit_is_noticed(void) {
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(NAME, NULL, 1, two_disks, 1);
        CLEANUP(freep) char *text = NULL;
        Manifest *again = NULL;
        char path[200];
        size_t length;
        int fd;

        CHECK_INT(manifest_commit(f.vm, m, NULL), 0);
        CHECK_INT(read_file(vm_fd(f.vm), PATH, 1 << 20, &text, &length, NULL), 0);
        snprintf(path, sizeof path, "%s/vms/vm1/" PATH, f.directory.path);
        fd = open(path, O_WRONLY);
        CHECK(fd >= 0);
        for (size_t bit = 0; bit < length * 8; bit++) {
                char flipped = (char) (text[bit / 8] ^ (1 << bit % 8));

                CHECK_INT(pwrite(fd, &flipped, 1, (off_t) (bit / 8)), 1);
                CHECK_INT(manifest_read(f.vm, NAME, &again, NULL), -EBADMSG);
                CHECK_INT(pwrite(fd, &text[bit / 8], 1, (off_t) (bit / 8)), 1);
        }
        close(fd);
        CHECK(!again);
        CHECK_INT(manifest_read(f.vm, NAME, &again, NULL), 0);
        manifest_unref(again);
}

/* A well sealed manifest in which the member at the path ("disks.0.size") has another value. */
static void forge(Fixture *f, const char *member, json_t *value) {
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(NAME, NULL, 1, two_disks, 2);
        CLEANUP(json_decrefp) json_t *object = NULL;
        char copy[100], *key = copy, *dot;
        json_t *in;

        m->files = calloc(1, sizeof *m->files);
        m->files[0] = (ManifestFile) { .name = strdup("domain.xml"), .length = 5, .seal = 1 };
        m->file_count = 1;
        unlinkat(vm_fd(f->vm), PATH, 0);
        CHECK_INT(manifest_commit(f->vm, m, NULL), 0);
        CHECK_INT(sealed_json_read(vm_fd(f->vm), PATH, &object, NULL), 0);
        CHECK_INT(json_object_del(object, "checksum"), 0);
        snprintf(copy, sizeof copy, "%s", member);
        in = object;
        while ((dot = strchr(key, '.'))) {
                *dot = 0;
                in = json_is_array(in) ? json_array_get(in, (size_t) atoi(key)) : json_object_get(in, key);
                CHECK(in);
                key = dot + 1;
        }
        if (value)
                CHECK_INT(json_object_set_new(in, key, value), 0);
        else
                CHECK_INT(json_object_del(in, key), 0);
        CHECK_INT(sealed_json_replace(vm_fd(f->vm), PATH, object, NULL), 0);
}

static json_t *repeated(json_t *item, size_t count) {
        json_t *list = json_array();

        for (size_t i = 0; i < count; i++)
                json_array_append(list, item);
        json_decref(item);
        return list;
}

static void every_limit_is_checked(void) {
        WITH_FIXTURE(f);
        const struct {
                const char *member;
                json_t *value;
                int error;
                const char *words;
        } cases[] = {
                { "format", json_string("virtbackupfs vm"), -EBADMSG, "it is no \"virtbackupfs point\"" },
                { "version", json_integer(2), -ENOTSUP, "newer version" },
                { "version", json_integer(0), -EBADMSG, "\"version\" is 0" },
                { "features", json_pack("[s]", "folded"), -ENOTSUP, "\"folded\"" },
                { "features", json_pack("[i]", 1), -ENOTSUP, "knows" },
                { "features", NULL, -EBADMSG, "\"features\" is missing" },
                { "name", json_string("2026-11-20T010204Z"), -EBADMSG, "another point" },
                { "vm", json_string("../x"), -EBADMSG, "\"vm\" is no good name" },
                { "vm_uuid", json_string("x"), -EBADMSG, "\"vm_uuid\"" },
                { "serial", json_integer(0), -EBADMSG, "\"serial\"" },
                { "serial", json_integer(SERIAL_MAX + 1), -EBADMSG, "\"serial\"" },
                { "capture", json_string(".."), -EBADMSG, "\"capture\"" },
                { "capture", json_string("a/b"), -EBADMSG, "\"capture\"" },
                { "kind", json_string("partial"), -EBADMSG, "unknown kind" },
                { "kind", json_string("incremental"), -EBADMSG, "has no parent" },
                { "time", json_string("now"), -EBADMSG, "\"time\"" },
                { "parent", json_string(NAME), -EBADMSG, "\"parent\" is no older point" },
                { "parent", json_string("2026-11-21T010203Z"), -EBADMSG, "\"parent\" is no older point" },
                { "parent", json_string("../x"), -EBADMSG, "\"parent\" is no older point" },
                { "disks", json_object(), -EBADMSG, "\"disks\" is no list" },
                { "disks", repeated(json_integer(1), 1025), -EBADMSG, "more than 1024" },
                { "disks", json_pack("[i]", 1), -EBADMSG, "disk 0" },
                { "disks.1.name", json_string("vda"), -EBADMSG, "twice" },
                { "disks.1.name", json_string("a/b"), -EBADMSG, "disk 1: \"name\"" },
                { "disks.0.size", json_integer(-1), -EBADMSG, "\"size\" is negative" },
                { "disks.0.size", json_real(1.5), -EBADMSG, "\"size\" is no number" },
                { "disks.0.allocated", json_integer(1000002), -EBADMSG, "more is allocated" },
                { "disks.0.kind", json_string("incremental"), -EBADMSG, "disk vda is incremental in a point that is full" },
                { "disks.0.kind", json_string("differential"), -EBADMSG, "disk vda is differential in a point that is" },
                { "disks.0.unreadable", json_integer(INT64_MAX), -EBADMSG, "more is unreadable than its size" },
                { "disks.0.backing", json_integer(1), -EBADMSG, "backing" },
                { "full_checkpoint", json_integer(1), -EBADMSG, "full_checkpoint" },
                { "disks.0.images", json_pack("[i]", 1), -EBADMSG, "image 0" },
                { "disks.0.images", repeated(json_string("x"), 4097), -EBADMSG, "more than 4096" },
                { "disks.0.layers", json_array(), -EBADMSG, "\"layers\" is empty" },
                { "disks.0.layers", repeated(json_object(), 4097), -EBADMSG, "more than 4096" },
                { "disks.0.layers.0.file", json_string("../vda.layer"), -EBADMSG, "layer 0: \"file\"" },
                { "disks.0.layers.0.file", json_string(".hidden"), -EBADMSG, "\"file\"" },
                { "disks.0.layers.0.file", json_string(""), -EBADMSG, "\"file\"" },
                { "disks.0.layers.0.seal", json_string("FEDCBA9876543210"), -EBADMSG, "\"seal\"" },
                { "disks.0.layers.0.seal", json_string("fed"), -EBADMSG, "\"seal\"" },
                { "disks.0.layers.0.length", json_string("1"), -EBADMSG, "\"length\"" },
                { "files.0.name", json_string("a/b"), -EBADMSG, "file 0: \"name\"" },
                { "files.0.length", json_integer(INT64_MAX), -EBADMSG, "longer than" },
                { "files", repeated(json_object(), 257), -EBADMSG, "more than 256" },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                Manifest *again = NULL;
                Reason reason = REASON_INIT;

                forge(&f, cases[i].member, cases[i].value);
                CHECK_INT(manifest_read(f.vm, NAME, &again, &reason), cases[i].error);
                CHECK_SAYS(reason, cases[i].words);
                CHECK_SAYS(reason, "vm1: " PATH);
                CHECK(!again);
        }
}

static void unknown_members_are_ignored(void) {
        WITH_FIXTURE(f);
        Manifest *again = NULL;

        forge(&f, "disks.0.colour", json_string("blue"));
        CHECK_INT(manifest_read(f.vm, NAME, &again, NULL), 0);
        manifest_unref(again);
}

static void what_could_not_be_read_is_not_committed(void) {
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(NAME, NULL, 1, two_disks, 2);
        CLEANUP(strings_free) Strings points = { 0 };
        Reason reason = REASON_INIT;

        m->disks[0].size = UINT64_MAX;
        CHECK_INT(manifest_commit(f.vm, m, &reason), -EINVAL);
        CHECK_SAYS(reason, "\"size\" is negative");
        m->disks[0].size = 4096;
        free(m->capture);
        m->capture = NULL;
        CHECK_INT(manifest_commit(f.vm, m, &reason), -EINVAL);
        CHECK_INT(vm_list_points(f.vm, &points, &reason), 0);
        CHECK_INT(points.count, 0);
}

static void something_else_in_its_place_is_damage(void) {
        WITH_FIXTURE(f);
        Manifest *again = NULL;

        CHECK_INT(make_directory(vm_fd(f.vm), PATH, NULL), 0);
        CHECK_INT(manifest_read(f.vm, NAME, &again, NULL), -EBADMSG);
        CHECK_INT(remove_tree(vm_fd(f.vm), PATH, NULL), 0);
        CHECK_INT(symlinkat("../vm.json", vm_fd(f.vm), PATH), 0);
        CHECK_INT(manifest_read(f.vm, NAME, &again, NULL), -EBADMSG);
        CHECK(!again);
}

static void files_are_checked_against_their_seal(void) {
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(NAME, NULL, 1, two_disks, 1);
        CLEANUP(freep) char *text = NULL;
        const char *path = "data/" NAME ".9f3c21aa/domain.xml";
        Reason reason = REASON_INIT;
        size_t length;

        m->files = calloc(1, sizeof *m->files);
        m->files[0] = (ManifestFile) { .name = strdup("domain.xml"), .length = 5, .seal = checksum("<vm/>", 5) };
        m->file_count = 1;
        m->place = strdup("vms/vm1/data/" NAME ".9f3c21aa/");
        CHECK_INT(manifest_read_file(f.vm, m, "domain.xml", &text, &length, &reason), -EIO);
        CHECK_INT(make_directory(vm_fd(f.vm), "data/" NAME ".9f3c21aa", NULL), 0);
        CHECK_INT(create_file(vm_fd(f.vm), path, "<vm/>", 5, NULL), 0);
        CHECK_INT(manifest_read_file(f.vm, m, "domain.xml", &text, &length, &reason), 0);
        CHECK_TEXT(text, "<vm/>");
        freep(&text);
        text = NULL;
        CHECK_INT(manifest_read_file(f.vm, m, "nvram", &text, &length, &reason), -ENOENT);
        CHECK_INT(replace_file(vm_fd(f.vm), path, "<vn/>", 5, NULL), 0);
        CHECK_INT(manifest_read_file(f.vm, m, "domain.xml", &text, &length, &reason), -EIO);
        CHECK_SAYS(reason, "is damaged");
        CHECK_INT(replace_file(vm_fd(f.vm), path, "<vm/>x", 6, NULL), 0);
        CHECK_INT(manifest_read_file(f.vm, m, "domain.xml", &text, &length, &reason), -EIO);
        CHECK_INT(replace_file(vm_fd(f.vm), path, "<vm", 3, NULL), 0);
        CHECK_INT(manifest_read_file(f.vm, m, "domain.xml", &text, &length, &reason), -EIO);
}

int main(void) {
        RUN(what_was_committed_is_read_again);
        RUN(every_flipped_bit_is_noticed);
        RUN(every_limit_is_checked);
        RUN(unknown_members_are_ignored);
        RUN(what_could_not_be_read_is_not_committed);
        RUN(something_else_in_its_place_is_damage);
        RUN(files_are_checked_against_their_seal);
        return unit_result();
}
