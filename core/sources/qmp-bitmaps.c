#include "sources/qmp-private.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

/* Every bitmap of ours stays on until it is deleted. So the base's alone has all that was written since, and needs no
 * others merged in; one that somebody turned off has not. */
int qmp_bitmap_check(const QmpNodes *nodes, const QmpDisk *disk, const char *base, Reason *reterr) {
        const QmpNode *node = qmp_nodes_find(nodes, disk->bitmap_node);
        const QmpBitmap *bitmap = node ? qmp_node_bitmap(node, base) : NULL;

        if (!bitmap && !disk->persistent)
                return fail(reterr, -ESTALE, "%s has no bitmap %s: its image cannot keep one when QEMU ends", disk->name,
                            base);
        if (!bitmap)
                return fail(reterr, -ESTALE, "%s has no bitmap %s: its image is new, or QEMU was killed",
                            disk->name, base);
        if (bitmap->inconsistent)
                return fail(reterr, -ESTALE, "the bitmap %s of %s is inconsistent, as QEMU was killed while it was in use",
                            base, disk->name);
        if (!bitmap->recording)
                return fail(reterr, -ESTALE, "the bitmap %s of %s was turned off by another program", base, disk->name);
        return 0;
}

int qmp_bitmap_why_not(const QmpSource *source, const QmpDisk *disk, char **ret, Reason *reterr) {
        const QmpNode *node = qmp_nodes_find(&source->nodes, disk->bitmap_node);
        char prefix[JOB_TAG_MAX];
        bool inconsistent = false;

        job_repository_prefix(source->source.owner.repository, prefix);
        for (size_t i = 0; node && i < node->bitmap_count; i++) {
                const QmpBitmap *bitmap = &node->bitmaps[i];

                if (strncmp(bitmap->name, prefix, strlen(prefix)) != 0)
                        continue;
                if (bitmap->recording && !bitmap->inconsistent) {
                        *ret = NULL;
                        return 0;
                }
                inconsistent |= bitmap->inconsistent;
        }
        if (inconsistent)
                *ret = strdup("its bitmap is inconsistent, as QEMU was killed while it was in use");
        else if (disk->persistent)
                *ret = strdup("it has no bitmap of an earlier backup: its image is new, or QEMU was killed");
        else if (text_format(ret, "it has no bitmap of an earlier backup: a %s image keeps none when QEMU ends",
                             node && node->read_only ? "read-only" : node ? node->driver : "raw") < 0)
                *ret = NULL;
        return *ret ? 0 : fail_oom(reterr);
}

int qmp_bitmap_remove(QmpSource *source, const char *node, const char *name, Reason *reterr) {
        return qmp_run(source, "block-dirty-bitmap-remove", json_pack("{s:s, s:s}", "node", node, "name", name), reterr);
}

static bool is_kept(const char *name, const char *const *keep, size_t count) {
        for (size_t i = 0; i < count; i++)
                if (strcmp(name, keep[i]) == 0)
                        return true;
        return false;
}

int qmp_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr) {
        QmpSource *source = (QmpSource *) base;
        CLEANUP(qmp_nodes_clear) QmpNodes nodes = { 0 };
        char prefix[JOB_TAG_MAX];
        int rc, result = 0;

        rc = qmp_connect(source, reterr);
        if (rc == -EHOSTDOWN)
                return fail_within(reterr, -EAGAIN, "its bitmaps stay in the images until it runs again");
        if (rc == 0)
                rc = qmp_look_at_nodes(source, &nodes, reterr);
        if (rc < 0)
                return rc;
        job_repository_prefix(source->source.owner.repository, prefix);
        for (size_t i = 0; i < nodes.count; i++) {
                const QmpNode *node = &nodes.items[i];

                for (size_t b = 0; b < node->bitmap_count; b++) {
                        const char *name = node->bitmaps[b].name;

                        if (strncmp(name, prefix, strlen(prefix)) != 0 || is_kept(name, keep, count))
                                continue;
                        rc = qmp_bitmap_remove(source, node->name, name, result == 0 ? reterr : NULL);
                        /* A backing file cannot be written to: what it has goes when it is merged away. */
                        if (rc < 0 && !(rc == -EIO && node->read_only))
                                result = result < 0 ? result : rc;
                }
        }
        return result;
}
