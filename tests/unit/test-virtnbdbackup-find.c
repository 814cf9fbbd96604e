/* What is found of virtnbdbackup in a directory: which streams are of one point, what each needs, and what goes with it. */
#include <errno.h>
#include <sys/stat.h>

#include "formats/format.h"
#include "stream-maker.h"

#define DAY "2024-11-20T"
#define SIZE 8192u

static TemporaryDirectory place;
static LayerStore *store;
static Findings findings;

static void put(const char *name, const char *text) {
        CLEANUP(close_fd) int fd = openat(place.fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, text, strlen(text)), 0);
}

/* A stream with a block of data. time: "01:02:03.5". */
static void put_stream_of(const char *name, uint64_t size, const char *disk, const char *checkpoint, const char *parent,
                          bool incremental, const char *date) {
        StreamMaker maker = stream_maker_new(false, 32u << 20);

        stream_meta(&maker, size, disk, checkpoint, parent, incremental, date);
        stream_data(&maker, 4096, name, strlen(name));
        stream_end(&maker);
        stream_write(&maker, place.fd, name);
        stream_maker_clear(&maker);
}

static void put_stream(const char *name, const char *disk, const char *checkpoint, const char *parent, bool incremental,
                       const char *time) {
        char date[64];

        snprintf(date, sizeof date, DAY "%s", time);
        put_stream_of(name, SIZE, disk, checkpoint, parent, incremental, date);
}

static void put_full(const char *name, const char *disk, const char *time) {
        put_stream(name, disk, "virtnbdbackup.0", "", false, time);
}

static void put_inc(const char *disk, int number, const char *time) {
        char name[64], checkpoint[32], parent[32];

        snprintf(name, sizeof name, "%s.inc.virtnbdbackup.%d.data", disk, number);
        snprintf(checkpoint, sizeof checkpoint, "virtnbdbackup.%d", number);
        snprintf(parent, sizeof parent, "virtnbdbackup.%d", number - 1);
        put_stream(name, disk, checkpoint, parent, true, time);
}

/* Shows the directory to the format; afterwards it is empty again. */
static void find(void) {
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;
        FoundDirectory directory = { .store = store, .path = "", .findings = &findings };

        findings_clear(&findings);
        CHECK_INT(list_directory(place.fd, ".", &names, &reason), 0);
        directory.entries = calloc(names.count + 1, sizeof *directory.entries);
        CHECK(directory.entries);
        for (size_t i = 0; i < names.count; i++) {
                directory.entries[i].name = names.items[i];
                CHECK_INT(fstatat(place.fd, names.items[i], &directory.entries[i].st, AT_SYMLINK_NOFOLLOW), 0);
        }
        directory.entry_count = names.count;
        CHECK_INT(format_named("virtnbdbackup")->find(&directory, &reason), 0);
        for (size_t i = 0; i < names.count; i++) {
                if (!directory.entries[i].claimed)
                        fprintf(stderr, "not claimed: %s\n", names.items[i]);
                if (unlinkat(place.fd, names.items[i], 0) < 0)
                        CHECK_INT(remove_tree(place.fd, names.items[i], &reason), 0);
        }
        free(directory.entries);
}

static const FoundLayer *layer_of(const char *path) {
        for (size_t i = 0; i < findings.layer_count; i++)
                if (strcmp(findings.layers[i].location.path, path) == 0)
                        return &findings.layers[i];
        fprintf(stderr, "%s was not found\n", path);
        exit(1);
}

static bool is_one_point(const char *a, const char *b) {
        return strcmp(layer_of(a)->point, layer_of(b)->point) == 0;
}

/* That the first is onto the second; NULL: onto nothing. */
static void check_parent(const char *child, const char *parent) {
        if (parent)
                CHECK_TEXT(layer_of(child)->parent, layer_of(parent)->point);
        else
                CHECK(!layer_of(child)->parent);
}

static void check_problem(const char *path, const char *words) {
        Reason reason = REASON_INIT;

        CHECK(layer_of(path)->problem);
        fail(&reason, 0, "%s", layer_of(path)->problem);
        CHECK_SAYS(reason, words);
}

static void check_refused(const char *path, const char *words) {
        for (size_t i = 0; i < findings.refusal_count; i++)
                if (strcmp(findings.refusals[i].path, path) == 0) {
                        Reason reason = REASON_INIT;

                        fail(&reason, 0, "%s", findings.refusals[i].words);
                        CHECK_SAYS(reason, words);
                        return;
                }
        fprintf(stderr, "%s was not refused\n", path);
        exit(1);
}

static const FoundKept *kept_of(const char *point_of, const char *name) {
        const char *point = layer_of(point_of)->point;

        for (size_t i = 0; i < findings.kept_count; i++)
                if (strcmp(findings.kept[i].point, point) == 0 && strcmp(findings.kept[i].name, name) == 0)
                        return &findings.kept[i];
        return NULL;
}

static void a_chain_is_linked_by_checkpoints(void) {
        put_full("vda.full.data", "vda", "01:00:00.1");
        put_full("vdb.full.data", "vdb", "01:00:01");
        put_inc("vda", 1, "02:00:00");
        put_inc("vdb", 1, "02:00:30");
        put_inc("vda", 2, "03:00:00");
        put_inc("vdb", 2, "03:00:00");
        find();
        CHECK_INT(findings.layer_count, 6);
        CHECK_INT(findings.refusal_count, 0);
        CHECK(is_one_point("vda.full.data", "vdb.full.data"));
        CHECK(is_one_point("vda.inc.virtnbdbackup.1.data", "vdb.inc.virtnbdbackup.1.data"));
        CHECK(!is_one_point("vda.inc.virtnbdbackup.1.data", "vda.inc.virtnbdbackup.2.data"));
        check_parent("vda.full.data", NULL);
        check_parent("vda.inc.virtnbdbackup.1.data", "vda.full.data");
        check_parent("vdb.inc.virtnbdbackup.2.data", "vdb.inc.virtnbdbackup.1.data");
        CHECK_INT(layer_of("vda.full.data")->kind, FOUND_FULL);
        CHECK_INT(layer_of("vda.inc.virtnbdbackup.1.data")->kind, FOUND_INCREMENTAL);
        CHECK_TEXT(layer_of("vda.inc.virtnbdbackup.1.data")->checkpoint, "virtnbdbackup.1");
        CHECK_INT(layer_of("vdb.full.data")->time.tv_nsec, 100000000); /* that of the point */
        for (size_t i = 0; i < findings.layer_count; i++)
                CHECK(!findings.layers[i].problem && !findings.layers[i].note);
}

static void a_disk_whose_name_begins_as_anothers_is_another(void) {
        put_full("sda.full.data", "sda", "01:00:00");
        put_full("sdaa.full.data", "sdaa", "01:00:00");
        put_inc("sdaa", 1, "02:00:00");
        find();
        check_parent("sdaa.inc.virtnbdbackup.1.data", "sdaa.full.data");
        CHECK(is_one_point("sda.full.data", "sdaa.full.data"));
}

static void a_base_in_mid_chain_needs_nothing_and_is_of_its_increments_point(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_inc("vda", 1, "02:00:00");
        put_stream("vdb.inc.virtnbdbackup.1.data", "vdb", "virtnbdbackup.1", "virtnbdbackup.0", false, "02:00:01");
        put_inc("vda", 2, "03:00:00");
        put_inc("vdb", 2, "03:00:01");
        find();
        CHECK(is_one_point("vda.inc.virtnbdbackup.1.data", "vdb.inc.virtnbdbackup.1.data"));
        CHECK_INT(layer_of("vdb.inc.virtnbdbackup.1.data")->kind, FOUND_FULL);
        check_parent("vdb.inc.virtnbdbackup.1.data", NULL);
        check_parent("vdb.inc.virtnbdbackup.2.data", "vdb.inc.virtnbdbackup.1.data");
        CHECK(!layer_of("vdb.inc.virtnbdbackup.2.data")->problem);
}

static void differential_backups_are_leaves_of_their_own_moments(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_full("vdb.full.data", "vdb", "01:00:00");
        put_stream("vda.diff.1732064400.data", "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, "02:00:00");
        put_stream("vdb.diff.1732064402.data", "vdb", "virtnbdbackup.1", "virtnbdbackup.0", true, "02:00:02");
        put_stream("vda.diff.1732068000.data", "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, "03:00:00");
        put_inc("vda", 1, "04:00:00");
        put_inc("vda", 2, "05:00:00");
        put("vmconfig.1732064405.xml", "<domain/>");
        put("vmconfig.1732068001.xml", "<domain></domain>");
        find();
        CHECK(is_one_point("vda.diff.1732064400.data", "vdb.diff.1732064402.data"));
        CHECK(!is_one_point("vda.diff.1732064400.data", "vda.diff.1732068000.data"));
        check_parent("vda.diff.1732068000.data", "vda.full.data");
        check_parent("vda.inc.virtnbdbackup.2.data", "vda.inc.virtnbdbackup.1.data");
        CHECK(!layer_of("vda.diff.1732068000.data")->checkpoint);
        CHECK_INT(layer_of("vdb.diff.1732064402.data")->time.tv_sec, 1732064400);
        CHECK_INT(kept_of("vda.diff.1732064400.data", "domain.xml")->length, 9);
        CHECK_INT(kept_of("vda.diff.1732068000.data", "domain.xml")->length, 17);
}

static void runs_that_lack_disks_are_told_apart_by_their_logs(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_full("vdb.full.data", "vdb", "01:00:00");
        put_stream("vda.diff.1732096800.data", "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, "10:00:00");
        put_stream("vdb.diff.1732100400.data", "vdb", "virtnbdbackup.1", "virtnbdbackup.0", true, "11:00:00");
        put_stream("vda.diff.1732100401.data", "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, "11:00:01");
        put("backup.diff.11202024095959.log", "");
        put("backup.diff.11202024105958.log", "");
        find();
        CHECK(!is_one_point("vda.diff.1732096800.data", "vdb.diff.1732100400.data"));
        CHECK(is_one_point("vda.diff.1732100401.data", "vdb.diff.1732100400.data"));
}

static void runs_that_follow_each_other_within_a_second_are_told_apart(void) {
        put_full("vda.full.data", "vda", "10:00:05.9");
        put_full("vdb.full.data", "vdb", "10:00:06.1");
        put("backup.full.11202024100005.log", "");
        put("backup.inc.11202024100006.log", ""); /* after vdb was begun */
        put_inc("vda", 1, "10:00:07");
        put_inc("vdb", 1, "10:00:08");
        put("backup.inc.11202024100008.log", "");
        find();
        CHECK(is_one_point("vda.full.data", "vdb.full.data"));
        CHECK(is_one_point("vda.inc.virtnbdbackup.1.data", "vdb.inc.virtnbdbackup.1.data"));
}

static void an_increment_of_a_vm_that_was_off_is_nobodys_parent(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_stream("vda.inc.virtnbdbackup.0.data", "vda", "virtnbdbackup.0", "virtnbdbackup.0", true, "02:00:00");
        put_inc("vda", 1, "03:00:00");
        find();
        check_parent("vda.inc.virtnbdbackup.0.data", "vda.full.data");
        check_parent("vda.inc.virtnbdbackup.1.data", "vda.full.data");
        CHECK(!layer_of("vda.inc.virtnbdbackup.0.data")->checkpoint);
}

static void a_replaced_increment_is_told_of_where_it_is_missed(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_stream("vda.inc.virtnbdbackup.1.data", "vda", "virtnbdbackup.1", "virtnbdbackup.1", true, "03:00:00");
        put_inc("vda", 2, "04:00:00");
        find();
        check_problem("vda.inc.virtnbdbackup.1.data", "onto checkpoint virtnbdbackup.1, whose backup of vda is not here");
        check_problem("vda.inc.virtnbdbackup.2.data", "taken while the VM was off, has replaced it");
        CHECK(!layer_of("vda.full.data")->problem);
}

static void missing_parents_are_told(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_inc("vda", 2, "03:00:00");
        put_inc("vdb", 1, "02:00:00");
        put_stream("vdc.inc.virtnbdbackup.1.data", "vdc", "virtnbdbackup.1", "", true, "02:00:00");
        find();
        check_problem("vda.inc.virtnbdbackup.2.data", "onto checkpoint virtnbdbackup.1, whose backup of vda is not here");
        check_problem("vdb.inc.virtnbdbackup.1.data", "onto checkpoint virtnbdbackup.0, whose backup of vdb is not here");
        check_problem("vdc.inc.virtnbdbackup.1.data", "does not tell which checkpoint it is onto");
}

/* Two chains in one directory: the base that was there when the increment was written is the right one. */
static void checkpoint_names_that_repeat_are_told_apart_by_dates(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_inc("vda", 1, "02:00:00");
        put_full("vda.copy.data", "vda", "02:30:00"); /* a copy has the name of a checkpoint and makes none */
        put_stream("vda.inc.second.data", "vda", "virtnbdbackup.0", "", false, "03:00:00");
        put_stream("vda.inc.third.data", "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, "04:00:00");
        put_stream("vda.inc.fourth.data", "vda", "virtnbdbackup.2", "virtnbdbackup.1", true, "05:00:00");
        find();
        check_parent("vda.inc.virtnbdbackup.1.data", "vda.full.data");
        check_parent("vda.inc.third.data", "vda.inc.second.data");
        check_parent("vda.inc.fourth.data", "vda.inc.third.data");
        CHECK(!is_one_point("vda.full.data", "vda.inc.second.data"));
        CHECK(!is_one_point("vda.inc.virtnbdbackup.1.data", "vda.inc.third.data"));
        CHECK(!layer_of("vda.copy.data")->checkpoint);
}

static void the_same_backup_twice_is_taken_once(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_inc("vda", 1, "02:00:00");
        put_stream("vda.inc.virtnbdbackup.1-copied.data", "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, "02:00:00");
        find();
        CHECK_INT(findings.layer_count, 2);
        CHECK_INT(findings.refusal_count, 1);
        check_refused(findings.refusals[0].path, "the same backup is there under another name");
}

static void what_failed_is_incomplete_or_has_been_made_again(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_full("vda.full.data.partial", "vda", "00:30:00");
        put_full("vdb.full.data", "vdb", "01:00:00");
        put_inc("vda", 1, "02:00:00");
        put_stream("vdb.inc.virtnbdbackup.1.data.partial", "vdb", "virtnbdbackup.1", "virtnbdbackup.0", true, "02:00:00");
        put("vdc.full.data.partial", "");
        find();
        check_refused("vda.full.data.partial", "has been made again since");
        check_refused("vdc.full.data.partial", "does not begin as a stream does");
        check_problem("vdb.inc.virtnbdbackup.1.data.partial", "failed, or is still being written");
        CHECK(is_one_point("vda.inc.virtnbdbackup.1.data", "vdb.inc.virtnbdbackup.1.data.partial"));
        CHECK(!layer_of("vda.inc.virtnbdbackup.1.data")->problem);
}

static void a_stream_without_its_end_is_incomplete(void) {
        CLEANUP(close_fd) int fd = -1;
        struct stat st;

        put_full("vda.full.data", "vda", "01:00:00");
        fd = openat(place.fd, "vda.full.data", O_WRONLY | O_CLOEXEC);
        CHECK_INT(fstat(fd, &st), 0);
        CHECK_INT(ftruncate(fd, st.st_size - 1), 0);
        find();
        check_problem("vda.full.data", "it has been cut off");
}

static void streams_that_cannot_be_read_are_refused_with_the_reason_alone(void) {
        put("vda.full.data", "meta 0000000000000000 0000000000000002\r\n[]\r\n");
        put("vda.inc.virtnbdbackup.1.data", "something else");
        put("vdb.full.data", "neither a stream nor an image");
        find();
        CHECK_INT(findings.layer_count, 0);
        check_refused("vda.full.data", "its metadata is no JSON object");
        check_refused("vda.inc.virtnbdbackup.1.data", "it does not begin as a stream does");
        check_refused("vdb.full.data", "neither a stream nor an image of a disk");
        for (size_t i = 0; i < findings.refusal_count; i++)
                CHECK(!strstr(findings.refusals[i].words, ".data"));
}

static void a_stream_whose_beginning_is_damaged_is_no_image(void) {
        StreamMaker maker = stream_maker_new(false, 32u << 20);
        static const char zeroes[512];

        stream_meta(&maker, SIZE, "vda", "virtnbdbackup.0", "", false, DAY "01:00:00");
        stream_data(&maker, 0, zeroes, 512 - (maker.length + 82) % 512);
        stream_end(&maker);
        CHECK_INT(maker.length % 512, 0);
        maker.bytes[0] = 'M';
        stream_write(&maker, place.fd, "vda.full.data");
        stream_maker_clear(&maker);
        find();
        check_refused("vda.full.data", "the beginning of the stream is damaged");
}

static void raw_disks_are_of_the_first_full_backup(void) {
        CLEANUP(close_fd) int fd = openat(place.fd, "vdb.copy.data", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        CHECK_INT(ftruncate(fd, 65536), 0);
        put_full("vda.full.data", "vda", "01:00:00");
        put_inc("vda", 1, "02:00:00");
        put("vmconfig.virtnbdbackup.0.xml", "<domain/>");
        find();
        CHECK(is_one_point("vda.full.data", "vdb.copy.data"));
        CHECK_TEXT(layer_of("vdb.copy.data")->location.format, "raw");
        CHECK_INT(layer_of("vdb.copy.data")->size, 65536);
        CHECK_INT(findings.kept_count, 1);
}

static void images_alone_are_a_point(void) {
        for (int i = 0; i < 2; i++) {
                CLEANUP(close_fd) int fd = openat(place.fd, i ? "vda.full.data" : "vdb.copy.data", O_WRONLY | O_CREAT, 0600);

                CHECK_INT(ftruncate(fd, 65536), 0);
        }
        put_inc("vda", 1, "02:00:00");
        put("web.cpt", "[]");
        find();
        CHECK(is_one_point("vda.full.data", "vdb.copy.data"));
        check_parent("vda.inc.virtnbdbackup.1.data", "vda.full.data");
        CHECK_TEXT(layer_of("vda.full.data")->vm, "web");
}

static void a_disk_that_has_grown_says_from_where(void) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_stream_of("vda.inc.virtnbdbackup.1.data", SIZE * 2, "vda", "virtnbdbackup.1", "virtnbdbackup.0", true,
                      DAY "02:00:00");
        find();
        CHECK_TEXT(layer_of("vda.inc.virtnbdbackup.1.data")->location.member, "8192:");
        CHECK(!layer_of("vda.full.data")->location.member);
}

static void what_is_kept_is_given_to_its_backup(void) {
        Reason reason = REASON_INIT;

        put_full("vda.full.data", "vda", "01:00:00");
        put_inc("vda", 1, "02:00:00");
        put_inc("vda", 11, "03:00:00");
        put("vmconfig.virtnbdbackup.1.xml",
            "<domain><name>web</name><uuid>6f1c6a5e-0000-4000-8000-000000000002</uuid></domain>");
        put("vda.virtnbdbackup.1.qcow.json", "{}");
        put("OVMF_VARS.fd.virtnbdbackup.1", "1");
        put("vmlinuz-6.1.0.virtnbdbackup.11", "11");
        put("autostart.virtnbdbackup.1", "True");
        put("osinfo.virtnbdbackup.1", "{}");
        put("bitlocker.recovery.key.C.virtnbdbackup.1", "");
        put("vda.full.data.chksum", "1");
        put("web.cpt", "[]");
        put("backup.inc.11202024020000.log", "");
        CHECK_INT(make_directory(place.fd, "checkpoints", &reason), 0);
        put("checkpoints/virtnbdbackup.0.xml", "0");
        put("checkpoints/virtnbdbackup.1.xml", "10");
        find();
        CHECK_TEXT(layer_of("vda.full.data")->vm, "web");
        CHECK_TEXT(layer_of("vda.full.data")->vm_uuid, "6f1c6a5e-0000-4000-8000-000000000002");
        CHECK_INT(findings.refusal_count, 0);
        CHECK_INT(findings.kept_count, 9);
        CHECK(kept_of("vda.inc.virtnbdbackup.1.data", "domain.xml"));
        CHECK(kept_of("vda.inc.virtnbdbackup.1.data", "vda.qcow.json"));
        CHECK_INT(kept_of("vda.inc.virtnbdbackup.1.data", "OVMF_VARS.fd")->length, 1);
        CHECK_INT(kept_of("vda.inc.virtnbdbackup.11.data", "vmlinuz-6.1.0")->length, 2);
        CHECK(kept_of("vda.inc.virtnbdbackup.1.data", "autostart"));
        CHECK(kept_of("vda.inc.virtnbdbackup.1.data", "osinfo"));
        CHECK(kept_of("vda.inc.virtnbdbackup.1.data", "bitlocker.recovery.key.C"));
        CHECK_INT(kept_of("vda.full.data", "checkpoint.xml")->length, 1);
        CHECK_INT(kept_of("vda.inc.virtnbdbackup.1.data", "checkpoint.xml")->length, 2);
}

static void a_disk_that_was_backed_up_and_is_not_here_makes_its_point_incomplete(void) {
        CLEANUP(close_fd) int fd = openat(place.fd, "vdc.copy.data", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        CHECK_INT(ftruncate(fd, 65536), 0);
        put_full("vda.full.data", "vda", "01:00:00");
        put("vda.virtnbdbackup.0.qcow.json", "{}");
        put("vdb.virtnbdbackup.0.qcow.json", "{\"virtual-size\": 8192}");
        put("vdc.virtnbdbackup.0.qcow.json", "{}");
        put_inc("vda", 1, "02:00:00");
        put("vda.virtnbdbackup.1.qcow.json", "{}");
        put("vdb.virtnbdbackup.1.qcow.json", "no JSON");
        put_stream("vda.diff.1732064400.data", "vda", "virtnbdbackup.2", "virtnbdbackup.1", true, "02:30:00");
        put("vdb.1732064402.qcow.json", "{}");
        put_inc("vda", 2, "03:00:00");
        put("vdb.virtnbdbackup.3.qcow.json", "{}"); /* of a backup of which nothing is here */
        find();
        CHECK_INT(findings.layer_count, 8);
        check_problem("vdb.virtnbdbackup.0.qcow.json",
                      "vdb was backed up, as vdb.virtnbdbackup.0.qcow.json tells, but its data");
        CHECK(is_one_point("vda.full.data", "vdb.virtnbdbackup.0.qcow.json"));
        CHECK_INT(layer_of("vdb.virtnbdbackup.0.qcow.json")->size, 8192);
        CHECK_TEXT(layer_of("vdb.virtnbdbackup.0.qcow.json")->disk, "vdb");
        CHECK(is_one_point("vda.inc.virtnbdbackup.1.data", "vdb.virtnbdbackup.1.qcow.json"));
        check_parent("vdb.virtnbdbackup.1.qcow.json", "vda.full.data");
        CHECK_INT(layer_of("vdb.virtnbdbackup.1.qcow.json")->kind, FOUND_INCREMENTAL);
        CHECK_INT(layer_of("vdb.virtnbdbackup.1.qcow.json")->size, 0);
        CHECK(is_one_point("vda.diff.1732064400.data", "vdb.1732064402.qcow.json"));
        for (size_t i = 0; i < findings.layer_count; i++)
                CHECK(findings.layers[i].problem || strcmp(findings.layers[i].disk, "vdb") != 0);
}

static void a_copy_keeps_what_the_vm_boots_under_its_own_name(void) {
        put_full("vda.copy.data", "vda", "01:00:00");
        put("vmconfig.copy.xml", "<domain><name>web</name><os><loader>/usr/share/OVMF/OVMF_CODE.fd</loader>"
                                 "<nvram>/var/lib/libvirt/web_VARS.fd</nvram></os></domain>");
        put("OVMF_CODE.fd", "code");
        put("web_VARS.fd", "variables");
        find();
        CHECK_INT(kept_of("vda.copy.data", "OVMF_CODE.fd")->length, 4);
        CHECK_INT(kept_of("vda.copy.data", "web_VARS.fd")->length, 9);
        CHECK(kept_of("vda.copy.data", "domain.xml"));
}

/* date: of the increment; log: the version line of its run, or NULL; what the note has to be. */
static bool has_note(const char *date, bool has_checksum, const char *log) {
        put_full("vda.full.data", "vda", "01:00:00");
        put_stream_of("vda.inc.virtnbdbackup.1.data", SIZE, "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, date);
        if (has_checksum)
                put("vda.inc.virtnbdbackup.1.data.chksum", "1");
        if (log)
                put("backup.inc.11202025015959.log", log);
        find();
        CHECK(!layer_of("vda.full.data")->note);
        return layer_of("vda.inc.virtnbdbackup.1.data")->note;
}

static void increments_of_versions_that_drop_zeroes_say_so(void) {
        static const char date[] = "2025-11-20T02:00:00";

        CHECK(has_note(date, true, NULL));
        CHECK(has_note(date, true, "INFO common - printVersion [main]: Version: 2.47 Arguments: virtnbdbackup -l inc\n"));
        CHECK(has_note(date, true, "Version: 2.21 Arguments: x\n"));
        CHECK(!has_note(date, true, "Version: 2.20 Arguments: x\n"));
        CHECK(!has_note(date, true, "Version: 2.47 Arguments: virtnbdbackup -l inc --no-sparse-detection\n"));
        CHECK(!has_note(date, false, NULL)); /* before 1.9.40 */
        CHECK(!has_note("2024-11-20T02:00:00", true, NULL));
}

int main(void) {
        setenv("TZ", "UTC", 1);
        place = temporary_directory();
        CHECK_INT(layer_store_new(place.fd, 1u << 20, &store), 0);
        RUN(a_chain_is_linked_by_checkpoints);
        RUN(a_disk_whose_name_begins_as_anothers_is_another);
        RUN(a_base_in_mid_chain_needs_nothing_and_is_of_its_increments_point);
        RUN(differential_backups_are_leaves_of_their_own_moments);
        RUN(runs_that_lack_disks_are_told_apart_by_their_logs);
        RUN(runs_that_follow_each_other_within_a_second_are_told_apart);
        RUN(an_increment_of_a_vm_that_was_off_is_nobodys_parent);
        RUN(a_replaced_increment_is_told_of_where_it_is_missed);
        RUN(missing_parents_are_told);
        RUN(checkpoint_names_that_repeat_are_told_apart_by_dates);
        RUN(the_same_backup_twice_is_taken_once);
        RUN(what_failed_is_incomplete_or_has_been_made_again);
        RUN(a_stream_without_its_end_is_incomplete);
        RUN(streams_that_cannot_be_read_are_refused_with_the_reason_alone);
        RUN(a_stream_whose_beginning_is_damaged_is_no_image);
        RUN(raw_disks_are_of_the_first_full_backup);
        RUN(images_alone_are_a_point);
        RUN(a_disk_that_has_grown_says_from_where);
        RUN(what_is_kept_is_given_to_its_backup);
        RUN(a_disk_that_was_backed_up_and_is_not_here_makes_its_point_incomplete);
        RUN(a_copy_keeps_what_the_vm_boots_under_its_own_name);
        RUN(increments_of_versions_that_drop_zeroes_say_so);
        findings_clear(&findings);
        layer_store_free(store);
        temporary_directory_clear(&place);
        return unit_result();
}
