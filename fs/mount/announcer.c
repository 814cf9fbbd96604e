#include "mount/announcer.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "codec/checksum.h"
#include "log.h"

#define REMEMBERED 64 /* at once; more are announced too often */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
        uint64_t path; /* its checksum; 0: free */
        unsigned tenth;
} announced[REMEMBERED]; /* guarded by the lock */

/* Whether this is another tenth than the last time, for this path; with done that it is over. */
static bool is_news(const char *path, unsigned tenth, bool over) {
        uint64_t hash = checksum(path, strlen(path)) | 1;
        size_t i = 0;
        bool news;

        pthread_mutex_lock(&lock);
        while (i < REMEMBERED - 1 && announced[i].path != hash && announced[i].path != 0)
                i++;
        news = over || announced[i].path != hash || announced[i].tenth != tenth;
        announced[i].path = over && announced[i].path == hash ? 0 : hash;
        announced[i].tenth = tenth;
        pthread_mutex_unlock(&lock);
        return news;
}

static void tell(void *context, const char *path, uint64_t done, uint64_t total, const Reason *failure) {
        unsigned tenth = total > 0 ? (unsigned) (done / ((total + 9) / 10)) : 0;

        if (!is_news(path, tenth, failure || done == total))
                return;
        if (failure)
                log_line(LOG_ERR, "%s: unpacking failed: %s", path, failure->text);
        else if (done == total)
                log_line(LOG_INFO, "%s: unpacked", path);
        else
                log_line(LOG_INFO, "%s: unpacking: %u %%", path, tenth * 10);
}

LayerListener announcer(void) {
        return (LayerListener) { tell, NULL };
}
