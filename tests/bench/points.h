/* tests/bench/points.h - points of a VM that never was, for the programs that make what a bench measures. They end the
 * program where something fails. */
#pragma once

#include "formats/native/layer-writer.h"
#include "repository/manifest.h"

void points_check(int rc, const Reason *reason);

/* Commits the next point, number 0 a full one; name: of the point before, and then of this. layer: what
 * was written through make_layer(); NULL: there is none, which listings do not notice. */
void make_point(Vm *vm, unsigned number, uint64_t disk_size, const LayerTotals *layer, char name[static POINT_NAME_MAX]);

/* The layer of the point with this number, to be written and finished before make_point(). */
LayerWriter *make_layer(Vm *vm, unsigned number, uint64_t disk_size, const Codec *codec);
