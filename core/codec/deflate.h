/* core/codec/deflate.h - decompression of raw deflate streams (RFC 1951, no header around them).
 *
 * Threads: may be called from any thread; each keeps a context. */
#pragma once

#include <stddef.h>

/* What follows the stream in from is passed over. 0 only where exactly to_length bytes came out; else -EBADMSG (-ENOMEM).
 * Never writes past to_length. */
int deflate_decompress(const void *from, size_t length, void *to, size_t to_length);
