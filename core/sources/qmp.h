/* core/sources/qmp.h - VMs of a QEMU without libvirt, reached by its monitor; see qmp-uri.h and qmp-private.h. */
#pragma once

#include "sources/source.h"

extern const SourceOps qmp_source_ops;
