/* core/chain/chain-map.h - the extent map of a chain, as `map` and DISK.map print it. */
#pragma once

#include <stdio.h>

#include "chain/chain-view.h"

/* Lines of four columns under a heading: start and length in bytes, state (data, zero, unreadable), and the point that
 * holds the extent ("-": lost). The caller frees *ret. */
int chain_map_text(const ChainView *view, char **ret, size_t *ret_length, Reason *reterr);

/* An array of {"start", "length", "data", "zero", "point"}, as `qemu-img map --output=json` has the first four; what cannot
 * be read is data and has "unreadable": true. The caller frees *ret. */
int chain_map_json(const ChainView *view, char **ret, size_t *ret_length, Reason *reterr);

/* What these are made of: the start, each extent, and the end. `absent`: there is no such range on the disk. */
typedef struct ChainPrinter {
        const char *head, *tail;
        void (*print)(FILE *f, const ChainExtent *extent, bool absent, bool first);
} ChainPrinter;
extern const ChainPrinter chain_printer_text, chain_printer_json;
