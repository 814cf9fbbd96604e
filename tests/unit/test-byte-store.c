/* Files as byte stores and sinks. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/byte-store.h"
#include "random.h"
#include "temporary.h"
#include "util/bytes.h"
#include "util/file.h"
#include "util/io.h"

static void write_file(const TemporaryDirectory *directory, const char *path, const void *bytes, size_t length) {
        CLEANUP(close_fd) int fd = openat(directory->fd, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, bytes, length), 0);
}

static void what_is_appended_in_any_pieces_is_in_the_file(void) {
        WITH_DIRECTORY(directory);
        size_t length = 40u << 20, at = 0, read_length;
        CLEANUP(freep) uint8_t *bytes = malloc(length);
        CLEANUP(freep) char *content = NULL;
        CLEANUP(byte_sink_freep) ByteSink *sink = NULL;
        Reason reason = REASON_INIT;
        struct stat st;

        for (size_t i = 0; i < length; i += 8)
                store_le64(bytes + i, random_u64());
        CHECK_INT(file_sink_create(directory.fd, "a", &sink, &reason), 0);
        while (at < length) {
                size_t part = random_below(random_below(3) ? 9000 : 4u << 20);

                part = part < length - at ? part : length - at;
                CHECK_INT(byte_sink_append(sink, bytes + at, part, &reason), 0);
                at += part;
                CHECK_INT(byte_sink_size(sink), at);
        }
        CHECK_INT(byte_sink_commit(sink, &reason), 0);
        CHECK_INT(read_file(directory.fd, "a", length, &content, &read_length, &reason), 0);
        CHECK_INT(read_length, length);
        CHECK(memcmp(content, bytes, length) == 0);
        CHECK_INT(fstatat(directory.fd, "a", &st, 0), 0);
        CHECK_INT(st.st_mode & 07777, 0600);
}

static void a_sink_makes_new_files_alone(void) {
        WITH_DIRECTORY(directory);
        Reason reason = REASON_INIT;
        ByteSink *sink;

        write_file(&directory, "a", "x", 1);
        CHECK_INT(file_sink_create(directory.fd, "a", &sink, &reason), -EEXIST);
        CHECK_INT(symlinkat("elsewhere", directory.fd, "b"), 0);
        CHECK(file_sink_create(directory.fd, "b", &sink, &reason) < 0);
        CHECK_INT(file_sink_create(directory.fd, "../c", &sink, &reason), -EXDEV);
        CHECK_INT(file_sink_create(directory.fd, "no/d", &sink, &reason), -ENOENT);
        CHECK_SAYS(reason, "cannot create no/d");
}

static void a_sink_that_failed_once_is_never_committed(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(byte_sink_freep) ByteSink *sink = NULL;
        static uint8_t bytes[9u << 20];
        struct rlimit limit, before;
        Reason reason = REASON_INIT;

        CHECK_INT(file_sink_create(directory.fd, "a", &sink, &reason), 0);
        /* A limit on the file's size stands in for a full disk. */
        CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
        CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = before;
        limit.rlim_cur = (6u << 20) + 100;
        CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
        CHECK_INT(byte_sink_append(sink, bytes, sizeof bytes, &reason), -EFBIG);
        CHECK_SAYS(reason, "cannot write a");
        CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
        CHECK_INT(byte_sink_commit(sink, &reason), -EFBIG);
        CHECK_INT(byte_sink_append(sink, bytes, sizeof bytes, &reason), -EFBIG);
        CHECK_INT(byte_sink_commit(sink, &reason), -EFBIG);
}

typedef struct Obstacle {
        struct rlimit before;
        unsigned asked, gone_after;
} Obstacle;

static int remove_obstacle(void *context, unsigned times, int rc, const char *words) {
        Obstacle *obstacle = context;

        CHECK_INT(rc, -EFBIG);
        CHECK(strstr(words, "cannot write a"));
        CHECK_INT(times, obstacle->asked++);
        if (obstacle->asked == obstacle->gone_after)
                CHECK_INT(setrlimit(RLIMIT_FSIZE, &obstacle->before), 0);
        return obstacle->asked > obstacle->gone_after ? rc : 0;
}

static void a_sink_that_is_stuck_goes_on_where_it_stopped(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(byte_sink_freep) ByteSink *sink = NULL;
        static uint8_t bytes[9u << 20];
        CLEANUP(freep) char *content = NULL;
        Obstacle obstacle = { .gone_after = 3 };
        struct rlimit limit;
        size_t length;

        for (size_t i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t) (i * 7 + i / 251);
        CHECK_INT(file_sink_create(directory.fd, "a", &sink, NULL), 0);
        sink->stuck = remove_obstacle;
        sink->stuck_context = &obstacle;
        CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
        CHECK_INT(getrlimit(RLIMIT_FSIZE, &obstacle.before), 0);
        limit = obstacle.before;
        limit.rlim_cur = (6u << 20) + 100;
        CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
        CHECK_INT(byte_sink_append(sink, bytes, sizeof bytes, NULL), 0);
        CHECK_INT(byte_sink_commit(sink, NULL), 0);
        CHECK_INT(obstacle.asked, 3);
        CHECK_INT(read_file(directory.fd, "a", sizeof bytes, &content, &length, NULL), 0);
        CHECK_INT(length, sizeof bytes);
        CHECK(memcmp(bytes, content, length) == 0);
}

static void reads_outside_of_the_file_are_refused(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(cache_freep) Cache *files = NULL;
        ByteStore *store;
        Reason reason = REASON_INIT;
        char buffer[16];

        write_file(&directory, "a", "0123456789", 10);
        CHECK_INT(cache_new(10, &files), 0);
        CHECK_INT(file_store_open(directory.fd, "a", files, &store, &reason), 0);
        CHECK_INT(byte_store_size(store), 10);
        CHECK_TEXT(byte_store_name(store), "a");
        CHECK_INT(byte_store_read(store, buffer, 10, 0, &reason), 0);
        CHECK(memcmp(buffer, "0123456789", 10) == 0);
        CHECK_INT(byte_store_read(store, buffer, 0, 10, &reason), 0);
        CHECK_INT(byte_store_read(store, buffer, 1, 10, &reason), -EIO);
        CHECK_INT(byte_store_read(store, buffer, 11, 0, &reason), -EIO);
        CHECK_INT(byte_store_read(store, buffer, 10, UINT64_MAX - 4, &reason), -EIO);
        CHECK_SAYS(reason, "a: ");
        byte_store_free(store);
        CHECK_INT(cache_used(files), 0);
}

static void more_files_than_descriptors_are_read(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(cache_freep) Cache *files = NULL;
        enum { COUNT = 300 };
        ByteStore *stores[COUNT];
        struct rlimit limit, before;
        Reason reason = REASON_INIT;

        CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
        limit = before;
        limit.rlim_cur = 64;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK_INT(cache_new(32, &files), 0);
        for (int i = 0; i < COUNT; i++) {
                char path[16];

                snprintf(path, sizeof path, "%d", i);
                write_file(&directory, path, path, sizeof path);
                CHECK_INT(file_store_open(directory.fd, path, files, &stores[i], &reason), 0);
        }
        for (int i = 0; i < 2000; i++) {
                char buffer[16];
                int n = (int) random_below(COUNT);

                CHECK_INT(byte_store_read(stores[n], buffer, sizeof buffer, 0, &reason), 0);
                CHECK_INT(atoi(buffer), n);
        }
        CHECK(cache_used(files) <= 32);
        for (int i = 0; i < COUNT; i++)
                byte_store_free(stores[i]);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* Whether the kernel has all of a range in memory. */
static bool is_in_memory(const TemporaryDirectory *directory, const char *path, size_t offset, size_t length) {
        CLEANUP(close_fd) int fd = openat(directory->fd, path, O_RDONLY);
        unsigned char pages[256];
        void *map = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, (off_t) offset);
        bool all = true;

        CHECK(map != MAP_FAILED && length / 4096 <= sizeof pages);
        CHECK_INT(mincore(map, length, pages), 0);
        for (size_t i = 0; i < length / 4096; i++)
                all &= pages[i] & 1;
        munmap(map, length);
        return all;
}

/* open_files: 0: each file is opened again whenever it is needed. */
static void check_expecting(size_t open_files) {
        WITH_DIRECTORY(directory);
        size_t length = 2u << 20, part = 512u << 10;
        CLEANUP(freep) uint8_t *bytes = calloc(1, length);
        CLEANUP(cache_freep) Cache *files = NULL;
        Reason reason = REASON_INIT;
        ByteStore *store;

        memset(bytes, 1, length);
        write_file(&directory, "a", bytes, length);
        CHECK_INT(cache_new(open_files, &files), 0);
        CHECK_INT(file_store_open(directory.fd, "a", files, &store, &reason), 0);
        {
                CLEANUP(close_fd) int fd = openat(directory.fd, "a", O_RDONLY);

                CHECK_INT(fsync(fd), 0);
                CHECK_INT(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        }
        byte_store_expect(store, length, 1); /* past the end: nothing */
        byte_store_expect(store, part, part);
        while (!is_in_memory(&directory, "a", part, part))
                usleep(1000);
        byte_store_free(store);
}

static void what_is_expected_is_fetched_before_it_is_read(void) {
        check_expecting(32);
        check_expecting(0);
}

int main(void) {
        RUN(what_is_appended_in_any_pieces_is_in_the_file);
        RUN(a_sink_makes_new_files_alone);
        RUN(a_sink_that_failed_once_is_never_committed);
        RUN(a_sink_that_is_stuck_goes_on_where_it_stopped);
        RUN(reads_outside_of_the_file_are_refused);
        RUN(more_files_than_descriptors_are_read);
        RUN(what_is_expected_is_fetched_before_it_is_read);
        return unit_result();
}
