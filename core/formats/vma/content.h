/* core/formats/vma/content.h - the bytes of an archive, unpacked where it is packed.
 *
 * Not packed, they are the file itself. A zstd file of many frames is read in place. Any other is unpacked, once, into a
 * file of the disk cache, front to back: it grows as content_advance() is called, and can be read as far as it has come.
 * What another process unpacks is waited for.
 * Threads: one opens, advances and finishes it; any read meanwhile. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "formats/layer.h"
#include "formats/vma/unpacker.h"

#define CONTENT_KIND "vma" /* of what is unpacked, in the disk cache */

typedef struct Content Content;

/* Borrows the file; packing: NULL: it is not packed; key: names it in the disk cache. -ECANCELED. */
int content_open(ByteStore *file, const Packing *packing, LayerStore *store, const char *key, const atomic_bool *cancel,
                 Content **ret, Reason *reterr);
Content *content_free(Content *content); /* always NULL; what is not finished is gone */
DEFINE_CLEANUP(Content, content_free)

/* Whose size is no limit: content_advance() tells what there is. */
ByteStore *content_bytes(Content *content);
bool content_is_growing(const Content *content); /* it is being unpacked, by us */

/* Makes more of it available: *ret_available is all that can be read now, *ret_at_end that nothing comes behind it. */
int content_advance(Content *content, uint64_t *ret_available, bool *ret_at_end, Reason *reterr);
uint64_t content_position(const Content *content); /* bytes of the packed file that are done */

/* All of it is there, and good: from now on it stays in the disk cache. */
int content_finish(Content *content, Reason *reterr);
