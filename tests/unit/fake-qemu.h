/* tests/unit/fake-qemu.h - a QEMU's monitor as far as a capture uses it, that misbehaves at a chosen command.
 *
 * It keeps account of what is made in it, so that a test can see what was left. */
#pragma once

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "unit.h"

#define FAKE_BLOCKS                                                                                                         \
        "[{'device':'','qdev':'/machine/peripheral/vda/virtio-backend','removable':false,'locked':false,'inserted':{"       \
        "'node-name':'a','drv':'qcow2','ro':false,'file':'/a.qcow2','image':{'filename':'/a.qcow2','format':'qcow2',"       \
        "'virtual-size':1048576,'format-specific':{'type':'qcow2','data':{'compat':'1.1'}}}}},"                             \
        "{'device':'vdb','qdev':'/machine/peripheral-anon/device[1]/virtio-backend','removable':false,'inserted':{"         \
        "'node-name':'#b','drv':'raw','ro':false,'file':'/b','image':{'filename':'/b','format':'raw','virtual-size':512}}}]"

typedef enum FakeMischief {
        FAKE_NONE,
        FAKE_HANGS_UP_BEFORE, /* the command is not carried out */
        FAKE_HANGS_UP_AFTER,  /* it is */
        FAKE_REFUSES,
        FAKE_TALKS_NONSENSE,
        FAKE_RETURNS_A_NUMBER,
        FAKE_RETURNS_A_LIST_OF_NOTHINGS,
        FAKE_TALKS_OF_OTHER_THINGS, /* events, and an answer to another command: no harm */
        FAKE_MISCHIEFS,
} FakeMischief;

typedef struct FakeQemu {
        char path[100];
        int listen_fd;
        pthread_t thread;
        pthread_mutex_t lock;
        json_t *jobs, *exports, *nodes, *objects; /* arrays, as they are queried */
        bool server;                              /* the NBD server runs */
        bool paused;
        FakeMischief mischief;
        int at;       /* the number of the command that it is about; counts down */
        int commands; /* carried out */
} FakeQemu;

static inline void fake_drop(json_t *array, const char *key, const char *value) {
        for (size_t i = json_array_size(array); i-- > 0;)
                if (strcmp(json_string_value(json_object_get(json_array_get(array, i), key)) ?: "", value) == 0)
                        json_array_remove(array, i);
}

static inline json_t *fake_transaction(FakeQemu *fake, const json_t *actions) {
        const json_t *action;
        size_t i;

        json_array_foreach(actions, i, action)
                if (strcmp(json_string_value(json_object_get(action, "type")), "blockdev-backup") == 0) {
                        json_t *id = json_object_get(json_object_get(action, "data"), "job-id");

                        json_array_append_new(fake->jobs, json_pack("{s:O, s:O, s:s}", "id", id, "device", id, "status",
                                                                    "running"));
                }
        return json_object();
}

/* What a command returns; NULL: it is refused. */
static inline json_t *fake_answer(FakeQemu *fake, const char *command, const json_t *arguments) {
#define ARGUMENT(key) (json_string_value(json_object_get(arguments, key)) ?: "")
#define IS(name) (strcmp(command, name) == 0)
        if (IS("query-uuid"))
                return json_pack("{s:s}", "UUID", "00000000-0000-0000-0000-000000000000");
        if (IS("query-status"))
                return json_pack("{s:s, s:b}", "status", fake->paused ? "paused" : "running", "running", !fake->paused);
        if (IS("stop") || IS("cont"))
                fake->paused = IS("stop");
        if (IS("query-block"))
                return json_loads(getenv("FAKE_BLOCKS"), 0, NULL);
        if (IS("query-named-block-nodes"))
                return json_deep_copy(fake->nodes);
        if (IS("query-jobs") || IS("query-block-jobs"))
                return json_deep_copy(fake->jobs);
        if (IS("query-block-exports"))
                return json_deep_copy(fake->exports);
        if (IS("query-fdsets"))
                return json_pack("[{s:i, s:[{s:s}]}]", "fdset-id", 1, "fds", "opaque", "another's");
        if (IS("qom-list"))
                return json_deep_copy(fake->objects);
        if (IS("add-fd"))
                return json_pack("{s:i, s:i}", "fdset-id", 1, "fd", 9);
        if (IS("transaction"))
                return fake_transaction(fake, json_object_get(arguments, "actions"));
        if (IS("nbd-server-start") && fake->server)
                return NULL;
        if (IS("nbd-server-start") || IS("nbd-server-stop"))
                fake->server = IS("nbd-server-start");
        if (IS("nbd-server-stop"))
                json_array_clear(fake->exports);
        if (IS("object-add"))
                json_array_append_new(fake->objects, json_pack("{s:s}", "name", ARGUMENT("id")));
        if (IS("object-del"))
                fake_drop(fake->objects, "name", ARGUMENT("id"));
        if (IS("blockdev-create"))
                json_array_append_new(fake->jobs, json_pack("{s:s, s:s}", "id", ARGUMENT("job-id"), "status", "concluded"));
        if (IS("job-dismiss") || IS("job-cancel"))
                fake_drop(fake->jobs, "id", ARGUMENT("id"));
        if (IS("block-job-cancel"))
                fake_drop(fake->jobs, "id", ARGUMENT("device"));
        if (IS("blockdev-add"))
                json_array_append_new(fake->nodes, json_pack("{s:s, s:s}", "node-name", ARGUMENT("node-name"), "drv",
                                                             "file"));
        if (IS("blockdev-del"))
                fake_drop(fake->nodes, "node-name", ARGUMENT("node-name"));
        if (IS("block-export-add"))
                json_array_append_new(fake->exports, json_pack("{s:s}", "id", ARGUMENT("id")));
        if (IS("block-export-del"))
                fake_drop(fake->exports, "id", ARGUMENT("id"));
        return json_object();
#undef IS
#undef ARGUMENT
}

/* false: the connection is to be closed. */
static inline bool fake_serve_line(FakeQemu *fake, int fd, const char *line) {
        json_t *request = json_loads(line, 0, NULL), *id = json_object_get(request, "id"), *value = NULL;
        const char *command = json_string_value(json_object_get(request, "execute"));
        FakeMischief mischief;
        bool stays;

        CHECK(command && id);
        pthread_mutex_lock(&fake->lock);
        mischief = strcmp(command, "qmp_capabilities") != 0 && --fake->at == 0 ? fake->mischief : FAKE_NONE;
        if (mischief != FAKE_HANGS_UP_BEFORE && mischief != FAKE_REFUSES)
                value = fake_answer(fake, command, json_object_get(request, "arguments"));
        fake->commands++;
        pthread_mutex_unlock(&fake->lock);
        stays = mischief != FAKE_HANGS_UP_BEFORE && mischief != FAKE_HANGS_UP_AFTER;
        if (mischief == FAKE_TALKS_NONSENSE) {
                dprintf(fd, "\"nonsense\"\n");
        } else if (stays) {
                json_t *answer = mischief == FAKE_RETURNS_A_NUMBER ? json_pack("{s:i}", "return", 5) :
                                 mischief == FAKE_RETURNS_A_LIST_OF_NOTHINGS ? json_pack("{s:[n, n]}", "return") :
                                 value ? json_pack("{s:O}", "return", value) :
                                         json_pack("{s:{s:s, s:s}}", "error", "class", "GenericError", "desc", "not today");
                char *text;

                json_object_set(answer, "id", id);
                text = json_dumps(answer, JSON_COMPACT);
                if (mischief == FAKE_TALKS_OF_OTHER_THINGS)
                        dprintf(fd, "{\"event\": \"RESET\"}\r\n{\"return\": 7, \"id\": 1000000}\n"
                                    "{\"event\": 3, \"id\": 5}\n");
                dprintf(fd, "%s\r\n", text);
                free(text);
                json_decref(answer);
        }
        json_decref(value);
        json_decref(request);
        return stays;
}

static inline void *fake_run(void *data) {
        FakeQemu *fake = data;

        for (;;) {
                int fd = accept(fake->listen_fd, NULL, NULL);
                FILE *lines = fd >= 0 ? fdopen(fd, "r") : NULL;
                char *line = NULL;
                size_t capacity = 0;

                if (!lines)
                        return NULL;
                dprintf(fd, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
                while (getline(&line, &capacity, lines) > 0 && fake_serve_line(fake, fd, line))
                        ;
                free(line);
                fclose(lines);
        }
}

static inline void fake_start(FakeQemu *fake, const char *directory) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char blocks[] = FAKE_BLOCKS;

        for (char *c = blocks; *c; c++)
                *c = *c == '\'' ? '"' : *c;
        setenv("FAKE_BLOCKS", blocks, 1);
        *fake = (FakeQemu) { .jobs = json_array(), .exports = json_array(), .objects = json_array() };
        fake->nodes = json_pack("[{s:s, s:s}, {s:s, s:s}]", "node-name", "a", "drv", "qcow2", "node-name", "#b", "drv",
                                "raw");
        pthread_mutex_init(&fake->lock, NULL);
        snprintf(fake->path, sizeof fake->path, "%s/qmp.sock", directory);
        snprintf(address.sun_path, sizeof address.sun_path, "%s", fake->path);
        fake->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        unlink(fake->path);
        CHECK_INT(bind(fake->listen_fd, (const struct sockaddr *) &address, sizeof address), 0);
        CHECK_INT(listen(fake->listen_fd, 4), 0);
        CHECK_INT(pthread_create(&fake->thread, NULL, fake_run, fake), 0);
}

/* All its clients must have gone. */
static inline void fake_stop(FakeQemu *fake) {
        shutdown(fake->listen_fd, SHUT_RDWR);
        pthread_join(fake->thread, NULL);
        close(fake->listen_fd);
        json_decref(fake->jobs);
        json_decref(fake->exports);
        json_decref(fake->nodes);
        json_decref(fake->objects);
        pthread_mutex_destroy(&fake->lock);
}

/* Behaves badly at the command of this number, counted from now on. */
static inline void fake_misbehave(FakeQemu *fake, FakeMischief mischief, int at) {
        pthread_mutex_lock(&fake->lock);
        fake->mischief = mischief;
        fake->at = at;
        fake->commands = 0;
        pthread_mutex_unlock(&fake->lock);
}

/* Whether there is nothing in it but what was there at first. */
static inline bool fake_is_clean(FakeQemu *fake) {
        bool clean;

        pthread_mutex_lock(&fake->lock);
        clean = json_array_size(fake->jobs) == 0 && json_array_size(fake->exports) == 0 && !fake->server && !fake->paused &&
                json_array_size(fake->nodes) == 2 && json_array_size(fake->objects) == 0;
        pthread_mutex_unlock(&fake->lock);
        return clean;
}

static inline int fake_commands(FakeQemu *fake) {
        int commands;

        pthread_mutex_lock(&fake->lock);
        commands = fake->commands;
        pthread_mutex_unlock(&fake->lock);
        return commands;
}

/* Another program's NBD server. */
static inline void fake_set_server(FakeQemu *fake, bool there) {
        pthread_mutex_lock(&fake->lock);
        fake->server = there;
        pthread_mutex_unlock(&fake->lock);
}

static inline bool fake_has_server(FakeQemu *fake) {
        bool there;

        pthread_mutex_lock(&fake->lock);
        there = fake->server;
        pthread_mutex_unlock(&fake->lock);
        return there;
}
