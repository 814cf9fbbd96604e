#include "formats/kept.h"

#include <errno.h>
#include <string.h>

#include "codec/checksum.h"
#include "util/file.h"

typedef struct KeptLayer {
        Layer layer;
        char *content;
} KeptLayer;

static int kept_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        memcpy(buffer, ((KeptLayer *) layer)->content + offset, length);
        return 0;
}

static void kept_free(Layer *layer) {
        free(((KeptLayer *) layer)->content);
        free(layer);
}

static const LayerOps kept_ops = { .extents = layer_extents_data, .read = kept_read, .free = kept_free };

int kept_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        CLEANUP(freep) char *content = NULL;
        KeptLayer *kept;
        size_t length;
        int rc;

        if (location->length > KEPT_LENGTH_MAX)
                return fail(reterr, -EBADMSG, "%s is longer than %u bytes", location->path, KEPT_LENGTH_MAX);
        rc = read_file(layer_store_root(store), location->path, location->length, &content, &length, reterr);
        if (rc < 0)
                return rc == -ENOMEM ? rc : -EIO;
        if (length != location->length || checksum(content, length) != location->seal)
                return fail(reterr, -EIO, "%s is damaged: its checksum does not fit", location->path);
        kept = calloc(1, sizeof *kept);
        if (!kept)
                return fail_oom(reterr);
        kept->layer.ops = &kept_ops;
        kept->layer.disk_size = length;
        kept->content = STEAL_PTR(content);
        *ret = &kept->layer;
        return 0;
}
