#include "formats/virtnbdbackup/plain.h"

typedef struct PlainLayer {
        Layer layer;
        ByteStore *bytes;
} PlainLayer;

static int plain_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return byte_store_read(((PlainLayer *) layer)->bytes, buffer, length, offset, reterr);
}

static void plain_free(Layer *layer) {
        byte_store_free(((PlainLayer *) layer)->bytes);
        free(layer);
}

static const LayerOps plain_ops = { .extents = layer_extents_data, .read = plain_read, .free = plain_free };

int plain_open(ByteStore *bytes, Layer **ret, Reason *reterr) {
        PlainLayer *plain = calloc(1, sizeof *plain);

        if (!plain) {
                byte_store_free(bytes);
                return fail_oom(reterr);
        }
        plain->layer.ops = &plain_ops;
        plain->layer.disk_size = byte_store_size(bytes);
        plain->bytes = bytes;
        *ret = &plain->layer;
        return 0;
}
