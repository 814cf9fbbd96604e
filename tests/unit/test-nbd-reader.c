/* Against nbdkit and qemu-nbd, whose oracle this code is not. */
#include "sources/nbd-reader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "unit.h"

#define KIB 1024u
#define MIB (1024u * KIB)

extern char **environ;

static char directory[] = "/tmp/test-nbd-reader.XXXXXX";
static char socket_path[64];
static pid_t server = -1;

static void run(const char *command) {
        int status = system(command);

        if (status != 0)
                fprintf(stderr, "%s: status %d\n", command, status);
        CHECK_INT(status, 0);
}

static int connect_once(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

        strcpy(address.sun_path, socket_path);
        rc = connect(fd, (struct sockaddr *) &address, sizeof address);
        close(fd);
        return rc;
}

/* The command gets the socket's path as $S. "exec" makes the server's the process that is ended. */
static void start(const char *command) {
        char *argv[] = { "sh", "-c", (char *) command, NULL };

        unlink(socket_path);
        setenv("S", socket_path, 1);
        CHECK_INT(posix_spawn(&server, "/bin/sh", NULL, NULL, argv, environ), 0);
        while (connect_once() < 0) {
                CHECK_INT(waitpid(server, NULL, WNOHANG), 0); /* it died */
                usleep(10000);
        }
}

static void stop(void) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        server = -1;
}

static void freeze(void) {
        int status;

        kill(server, SIGSTOP);
        CHECK_INT(waitpid(server, &status, WUNTRACED), server);
        CHECK(WIFSTOPPED(status));
}

static int open_with(const char *export_name, const char *bitmap, unsigned patience_ms, const atomic_bool *cancel,
                     SourceReader **ret, Reason *reterr) {
        return nbd_reader_open(&(NbdAddress) { .socket_path = socket_path, .export_name = export_name, .bitmap = bitmap,
                                               .patience_ms = patience_ms }, cancel, ret, reterr);
}

static SourceReader *must_open(const char *export_name, const char *bitmap) {
        SourceReader *reader;
        Reason reason = REASON_INIT;
        int rc = open_with(export_name, bitmap, 0, NULL, &reader, &reason);

        if (rc < 0)
                fprintf(stderr, "%s\n", reason.text);
        CHECK_INT(rc, 0);
        return reader;
}

static void sparse_data_is_told_and_read(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(freep) unsigned char *bytes = malloc(2 * MIB);
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S data '@0x100000 (0x5a)*1048576 @0xa00000 0x01'");
        reader = must_open("", NULL);
        CHECK_INT(reader->size, 10 * MIB + 1);
        CHECK(reader->multi);
        CHECK_INT(source_extents(reader, 0, reader->size, &e, &reason), 0);
        for (size_t i = 0; i < e.count; i++)
                CHECK(e.items[i].dirty);
        CHECK(e.items[0].zero);
        CHECK_INT(source_read(reader, bytes, 2 * MIB, MIB - 7, &reason), 0);
        for (unsigned i = 0; i < 2 * MIB; i++)
                CHECK_INT(bytes[i], i < 7 || i >= MIB + 7 ? 0 : 0x5a);
        CHECK_INT(source_read(reader, bytes, 1, 10 * MIB, &reason), 0);
        CHECK_INT(bytes[0], 1);
        CHECK_INT(source_read(reader, bytes, 2, 10 * MIB, &reason), -ERANGE);
        stop();
}

static void short_answers_are_asked_on(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        /* One extent in an answer, of 16 MiB at most, by turns data and hole. */
        start("exec nbdkit -f -U $S eval get_size='echo 5G' pread='exit 1' can_extents='exit 0' "
              "extents='n=$((($4/16777216)%2)); l=$((16777216-$4%16777216)); "
              "[ $n = 1 ] && echo \"$4 $l hole,zero\" || echo \"$4 $l\"'");
        reader = must_open("", NULL);
        CHECK_INT(source_extents(reader, 5 * KIB, 200 * MIB, &e, &reason), 0);
        CHECK_INT(e.count, 13);
        CHECK_INT(e.items[0].start, 5 * KIB);
        for (size_t i = 0; i < e.count; i++)
                CHECK_INT(e.items[i].zero, i % 2);
        stop();
}

static void ranges_over_4_gib_take_several_requests(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S null 9T");
        reader = must_open("", NULL);
        CHECK_INT(source_extents(reader, 1, reader->size - 1, &e, &reason), 0);
        CHECK_INT(e.count, 1);
        CHECK(e.items[0].zero);
        CHECK(e.items[0].length == reader->size - 1);
        stop();
}

static void minimum_block_is_respected(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        unsigned char bytes[3 * 4096];
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S --filter=blocksize-policy pattern 1M "
              "blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=65536 blocksize-error-policy=error");
        reader = must_open("", NULL);
        CHECK_INT(source_read(reader, bytes, sizeof bytes, 4096 + 8, &reason), 0);
        for (unsigned i = 0; i < sizeof bytes; i += 8)
                CHECK(bytes[i + 7] == ((4104 + i) & 0xff) && bytes[i + 6] == ((4104 + i) >> 8 & 0xff));
        CHECK_INT(source_read(reader, bytes, 16, MIB - 16, &reason), 0);
        CHECK_INT(bytes[7], 0xf0);
        CHECK_INT(source_extents(reader, 100, 9000, &e, &reason), 0);
        CHECK_INT(e.items[0].start, 100);
        CHECK_INT(e.items[e.count - 1].start + e.items[e.count - 1].length, 9100);
        stop();
}

static void maximum_block_splits_reads(void) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        CLEANUP(freep) unsigned char *bytes = malloc(MIB);
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S --filter=blocksize-policy pattern 4M "
              "blocksize-minimum=512 blocksize-preferred=4096 blocksize-maximum=65536 blocksize-error-policy=error");
        reader = must_open("", NULL);
        CHECK_INT(source_read(reader, bytes, MIB, 3 * MIB - 24, &reason), 0);
        for (unsigned i = 0; i < MIB; i += 8)
                CHECK(bytes[i + 7] == ((3 * MIB - 24 + i) & 0xff) && bytes[i + 5] == ((3 * MIB - 24 + i) >> 16 & 0xff));
        stop();
}

static void odd_size_behind_a_minimum_block_is_read_to_its_end(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        unsigned char bytes[300];
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S --filter=blocksize-policy pattern 4396 "
              "blocksize-minimum=512 blocksize-preferred=4096 blocksize-maximum=65536");
        reader = must_open("", NULL);
        CHECK_INT(reader->size, 4396);
        CHECK_INT(source_extents(reader, 4000, 396, &e, &reason), 0);
        CHECK_INT(source_read(reader, bytes, 300, 4096, &reason), 0);
        CHECK_INT(bytes[7], 0);
        CHECK_INT(bytes[6], 0x10);
        stop();
}

static void all_is_data_to_a_server_without_structured_replies(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S --no-sr null 1M");
        reader = must_open("", NULL);
        CHECK_INT(source_extents(reader, 0, MIB, &e, &reason), 0);
        CHECK_INT(e.count, 1);
        CHECK(e.items[0].dirty && !e.items[0].zero);
        stop();
}

static void missing_bitmap_is_refused(void) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S null 1M");
        CHECK_INT(open_with("", "qemu:dirty-bitmap:b", 0, NULL, &reader, &reason), -ENODATA);
        CHECK_SAYS(reason, "no bitmap qemu:dirty-bitmap:b");
        CHECK_INT(nbd_reader_open(&(NbdAddress) { .socket_path = socket_path, .export_name = "", .top_depth = 1 }, NULL,
                                  &reader,
                                  &reason), -ENOTSUP);
        CHECK_SAYS(reason, "does not tell what of export");
        stop();
}

static void no_server_and_no_export_are_said(void) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        unlink(socket_path);
        CHECK_INT(open_with("", NULL, 0, NULL, &reader, &reason), -ECONNREFUSED);
        CHECK_SAYS(reason, socket_path);
        start("cd $(dirname $S) && truncate -s 1M x.raw && exec qemu-nbd -r -t -k $S -f raw -x disk x.raw");
        CHECK(open_with("other", NULL, 0, NULL, &reader, &reason) < 0);
        CHECK_SAYS(reason, "cannot connect");
        stop();
}

static void bitmap_tells_what_is_dirty(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        Reason reason = REASON_INIT;

        start("cd $(dirname $S) && qemu-img create -q -f qcow2 d.qcow2 16M && qemu-io -c 'write -P 1 0 4M' d.qcow2 "
              ">/dev/null && qemu-img bitmap --add -g 65536 d.qcow2 b && qemu-io -c 'write -P 2 1M 64k' "
              "-c 'write -z -u 2M 128k' "
              "-c 'discard 8M 1M' d.qcow2 >/dev/null && exec qemu-nbd -r -t -e 4 -k $S -f qcow2 -x disk -B b d.qcow2");
        reader = must_open("disk", "qemu:dirty-bitmap:b");
        CHECK_INT(source_extents(reader, 0, reader->size, &e, &reason), 0);
        for (size_t i = 0; i < e.count; i++) {
                uint64_t at = e.items[i].start;
                bool written = at >= MIB && at < MIB + 64 * KIB, zeroed = at >= 2 * MIB && at < 2 * MIB + 128 * KIB;
                bool discarded = at >= 8 * MIB && at < 9 * MIB;

                CHECK_INT(e.items[i].dirty, written || zeroed || discarded);
                CHECK_INT(e.items[i].zero, zeroed || at >= 4 * MIB);
        }
        CHECK(e.count >= 8);
        stop();
}

static void depth_tells_what_lies_below_the_top_image(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 }, plain = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL, *blind = NULL;
        Reason reason = REASON_INIT;

        start("cd $(dirname $S) && qemu-img create -q -f qcow2 base.qcow2 4M && "
              "qemu-io -c 'write -P 1 0 2M' base.qcow2 >/dev/null && "
              "qemu-img create -q -f qcow2 -F qcow2 -b base.qcow2 over.qcow2 4M && qemu-io -c 'write -P 2 1M 64k' "
              "-c 'write -z 3M 64k' over.qcow2 >/dev/null && exec qemu-nbd -r -t -e 4 -k $S -f qcow2 -A over.qcow2");
        CHECK_INT(nbd_reader_open(&(NbdAddress) { .socket_path = socket_path, .export_name = "", .top_depth = 1 }, NULL,
                                  &reader,
                                  &reason), 0);
        CHECK_INT(source_extents(reader, 0, reader->size, &e, &reason), 0);
        for (size_t i = 0; i < e.count; i++) {
                uint64_t at = e.items[i].start;

                CHECK_INT(e.items[i].below, at < 2 * MIB && (at < MIB || at >= MIB + 64 * KIB));
                CHECK_INT(e.items[i].zero, at >= 2 * MIB);
        }
        CHECK(e.count >= 4);
        CHECK_INT(nbd_reader_open(&(NbdAddress) { .socket_path = socket_path, .export_name = "", .ignore_zero = true }, NULL,
                                  &blind, &reason), 0);
        CHECK_INT(source_extents(blind, 512, 3 * MIB, &plain, &reason), 0);
        CHECK_INT(plain.count, 1);
        CHECK(plain.items[0].start == 512 && plain.items[0].length == 3 * MIB && plain.items[0].dirty &&
              !plain.items[0].zero);
        stop();
}

static void error_of_one_read_leaves_the_connection(void) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        char byte[512];
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S eval get_size='echo 1M' "
              "pread='[ $4 -ge 65536 ] && { echo EIO broken >&2; exit 1; }; head -c $3 /dev/zero'");
        reader = must_open("", NULL);
        CHECK_INT(source_read(reader, byte, sizeof byte, 65536, &reason), -EIO);
        CHECK_SAYS(reason, "cannot read: ");
        CHECK_INT(source_read(reader, byte, sizeof byte, 0, &reason), 0);
        stop();
}

static void killed_server_is_an_error_and_stays_one(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        char byte[512];
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S null 1M");
        reader = must_open("", NULL);
        CHECK_INT(source_read(reader, byte, sizeof byte, 0, &reason), 0);
        stop();
        CHECK(source_read(reader, byte, sizeof byte, 0, &reason) < 0);
        CHECK_SAYS(reason, "cannot read: ");
        CHECK_INT(source_read(reader, byte, sizeof byte, 0, &reason), -ENOTCONN);
        CHECK_INT(source_extents(reader, 0, 512, &e, &reason), -ENOTCONN);
}

static void silent_server_is_given_up(void) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        char byte[512];
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S null 1M");
        CHECK_INT(open_with("", NULL, 300, NULL, &reader, &reason), 0);
        freeze();
        CHECK_INT(source_read(reader, byte, sizeof byte, 0, &reason), -ETIMEDOUT);
        CHECK_SAYS(reason, "said nothing");
        reader = source_reader_free(reader);
        CHECK_INT(open_with("", NULL, 300, NULL, &reader, &reason), -ETIMEDOUT);
        CHECK_SAYS(reason, socket_path);
        stop();
}

static void *set_flag(void *data) {
        atomic_bool *cancel = data;

        usleep(100000);
        atomic_store(cancel, true);
        return NULL;
}

static void canceling_ends_a_wait(void) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        atomic_bool cancel = false;
        pthread_t thread;
        char byte[512];
        Reason reason = REASON_INIT;

        start("exec nbdkit -f -U $S null 1M");
        CHECK_INT(open_with("", NULL, 0, &cancel, &reader, &reason), 0);
        freeze();
        CHECK_INT(pthread_create(&thread, NULL, set_flag, &cancel), 0);
        CHECK_INT(source_read(reader, byte, sizeof byte, 0, &reason), -ECANCELED);
        pthread_join(thread, NULL);
        stop();
}

int main(void) {
        CHECK(mkdtemp(directory));
        snprintf(socket_path, sizeof socket_path, "%s/s", directory);
        RUN(sparse_data_is_told_and_read);
        RUN(short_answers_are_asked_on);
        RUN(ranges_over_4_gib_take_several_requests);
        RUN(minimum_block_is_respected);
        RUN(maximum_block_splits_reads);
        RUN(odd_size_behind_a_minimum_block_is_read_to_its_end);
        RUN(all_is_data_to_a_server_without_structured_replies);
        RUN(missing_bitmap_is_refused);
        RUN(no_server_and_no_export_are_said);
        RUN(bitmap_tells_what_is_dirty);
        RUN(depth_tells_what_lies_below_the_top_image);
        RUN(error_of_one_read_leaves_the_connection);
        RUN(killed_server_is_an_error_and_stays_one);
        RUN(silent_server_is_given_up);
        RUN(canceling_ends_a_wait);
        setenv("D", directory, 1);
        run("rm -r \"$D\"");
        return unit_result();
}
