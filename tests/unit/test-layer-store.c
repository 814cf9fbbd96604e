/* What the layers of a repository share. */
#include <sys/resource.h>

#include "formats/layer.h"
#include "temporary.h"
#include "unit.h"

/* For how many descriptors the kernel has made room. */
static unsigned room_for_files(void) {
        FILE *f = fopen("/proc/self/status", "re");
        char line[256];
        unsigned room = 0;

        CHECK(f);
        while (room == 0 && fgets(line, sizeof line, f))
                (void) sscanf(line, "FDSize: %u", &room);
        fclose(f);
        return room;
}

static void there_is_room_for_all_descriptors_before_threads_are_started(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        struct rlimit limit;

        CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_cur < 4096 ? limit.rlim_cur : 4096;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        CHECK(room_for_files() > limit.rlim_cur / 2);
}

int main(void) {
        RUN(there_is_room_for_all_descriptors_before_threads_are_started);
        return unit_result();
}
