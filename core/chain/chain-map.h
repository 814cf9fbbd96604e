/* core/chain/chain-map.h - the extent map of a chain, as `map` and DISK.map print it. */
#pragma once

#include "chain/chain.h"

/* Lines of four columns under a heading: start and length in bytes, state (data, zero, unreadable), and the point that
 * holds the extent ("-": lost). The caller frees *ret. */
int chain_map_text(Chain *chain, char **ret, size_t *ret_length, Reason *reterr);

/* An array of {"start", "length", "data", "zero", "point"}, as `qemu-img map --output=json` has the first four; what cannot
 * be read is data and has "unreadable": true. The caller frees *ret. */
int chain_map_json(Chain *chain, char **ret, size_t *ret_length, Reason *reterr);
